# placeholder until the report rules are written
