"""Seven applications, each a folder of the same shape: config, data, model, train, export, infer."""
