pref("general.config.filename", "cambio-lab.cfg");
pref("general.config.obscure_value", 0);
