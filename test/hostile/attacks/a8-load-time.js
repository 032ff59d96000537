// Does it when the module is loaded.
while (1) {}
