"""Where rows come from: the synthetic universe, local files, the hub."""
