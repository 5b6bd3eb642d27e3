"""Made-up patients: bodies with organs, drawn as CT scans."""
