package etcdstore

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// slogCore passes what etcd logs to slog: warnings and worse, a level lower than etcd has them, since most of them
// matter to those who run clusters by hand.
type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelDebug
	switch {
	case e.Message == served: // debug
	case e.Level > zapcore.ErrorLevel:
		level = slog.LevelError
	case e.Level == zapcore.ErrorLevel:
		level = slog.LevelWarn
	}
	if !c.log.Enabled(context.Background(), level) {
		return nil
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	c.log.LogAttrs(context.Background(), level, "etcd: "+e.Message, attrs...)
	return nil
}

// served is what etcd says as an error whenever a server that listens is closed.
const served = "setting up serving from embedded etcd failed."

func (c *slogCore) Sync() error { return nil }
