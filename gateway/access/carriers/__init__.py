"""Where the keys are that machines share."""
