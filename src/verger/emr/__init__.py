"""AWS EMR Serverless: the infrastructure that jobs of Verger's need, and the jobs."""
