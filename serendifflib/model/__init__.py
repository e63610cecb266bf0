"""SerenDiff: settings, fitting, matching, explaining, storage."""
