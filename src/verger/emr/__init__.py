"""AWS EMR, Serverless or on EC2: the infrastructure that jobs of Verger's need, and the jobs."""
