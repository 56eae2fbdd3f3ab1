"""How the project is put on machines: server launcher, images, compose, Kubernetes, dashboards."""
