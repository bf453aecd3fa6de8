"""What is made of a job's journal: hloc files, database, model; each made again only when its sources change."""
