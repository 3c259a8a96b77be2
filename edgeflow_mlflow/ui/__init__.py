"""The tab: the built bundle under `static/`, the pages that carry it, and one script in MLflow's own page."""
