package main

import (
	"log/slog"

	"paddock/internal/config"
	"paddock/internal/logging"
)

// newLogger writes lines for people where people read, else JSON. Lines gather for a moment in the buffer, which whoever
// asked for it closes at the end; warnings and errors do not wait.
func newLogger(a *app, cfg config.Log, p *progress) (*slog.Logger, *logging.Buffer) {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // checked with the rest of the settings
	out := logging.NewBuffer(p.above(a.stderr))
	if cfg.Format == "json" || cfg.Format == "auto" && !a.stderrTTY {
		return slog.New(logging.NewJSON(out, level)), out
	}
	if cfg.Format == "auto" && level < slog.LevelWarn {
		level = slog.LevelWarn // the progress is on the same terminal
	}
	return slog.New(logging.NewText(out, level)), out
}
