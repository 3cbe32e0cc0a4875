"""What stands between components: the plan, the graph, fan-out, queues and retries."""
