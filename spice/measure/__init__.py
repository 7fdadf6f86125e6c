"Metrics, protocols, evaluation: how good a system is."
