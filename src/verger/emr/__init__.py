"""Run Verger on AWS EMR, Serverless or on EC2: the infrastructure, and the jobs."""
