"""Pictures of pairs and of localized queries, from a job or from two photographs."""
