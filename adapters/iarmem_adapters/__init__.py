"""Model families for iarmem: what each model computes, and where its neurons are."""
