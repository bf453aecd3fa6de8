"""The outputs of a job, made from its journal: hloc files, database, model; each rebuilt only if its sources change."""
