package logging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"testing/slogtest"
	"time"

	"encoding/json"
)

type valuer struct{ v slog.Value }

func (v valuer) LogValue() slog.Value { return v.v }

type broken struct{ text *string }

func (b *broken) Error() string { return *b.text }

type name string

// What comes out is what slog's own handler writes, whatever goes in.
func TestWritesWhatSlogWrites(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)
	var none *broken
	for i, attrs := range [][]slog.Attr{
		nil,
		{slog.String("a", "b"), slog.Int64("n", -5), slog.Uint64("u", math.MaxUint64), slog.Bool("t", true)},
		{slog.Duration("took", 1500*time.Millisecond), slog.Any("err", errors.New("no")), slog.Any("none", nil)},
		{slog.String("quoted", `say "hi"`), slog.String("lines", "a\nb"), slog.String("bad", "\xff"), slog.String("sep", "\u2028")},
		{slog.String("high", "grün"), slog.String("del", "\x7f"), slog.String("", ""), slog.String("key\n", "v")},
		{slog.Float64("f", 1.5), slog.Time("at", at), slog.Any("typed", name("x")), slog.Any("m", map[string]int{"a": 1})},
		{slog.Group("g", slog.Int("x", 1)), slog.Group("empty"), {}, slog.Any("v", valuer{slog.StringValue("resolved")})},
		{slog.Any("err", none), slog.Any("wrapped", fmt.Errorf("a: %w", errors.New("b <&> c")))},
	} {
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelInfo + 1, slog.LevelError} {
			for _, when := range []time.Time{at, {}, at.In(time.FixedZone("x", 5400)), time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)} {
				r := slog.NewRecord(when, level, "message", 0)
				r.AddAttrs(attrs...)
				compare(t, i, r, attrs)
			}
		}
	}
}

func compare(t *testing.T, i int, r slog.Record, attrs []slog.Attr) {
	t.Helper()
	for kind, wrap := range map[string]func(slog.Handler) slog.Handler{
		"bare":   func(h slog.Handler) slog.Handler { return h },
		"with":   func(h slog.Handler) slog.Handler { return h.WithAttrs([]slog.Attr{slog.String("part", "x")}) },
		"same":   func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs).WithAttrs(attrs) },
		"group":  func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs).WithGroup("g") },
		"nested": func(h slog.Handler) slog.Handler { return h.WithGroup("g").WithAttrs(attrs).WithGroup("") },
	} {
		var want, got bytes.Buffer
		out := NewBuffer(&got)
		if err := wrap(slog.NewJSONHandler(&want, &slog.HandlerOptions{Level: slog.LevelDebug})).Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		if err := wrap(NewJSON(out, slog.LevelDebug)).Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		out.Close()
		if got.String() != want.String() {
			t.Errorf("%d, %s:\n got %s\nwant %s", i, kind, got.String(), want.String())
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("key", "value", "message")
	f.Add("k\"", "\x00\u2029", "é")
	f.Fuzz(func(t *testing.T, key, value, message string) {
		r := slog.NewRecord(time.Unix(1, 2).UTC(), slog.LevelInfo, message, 0)
		r.AddAttrs(slog.String(key, value))
		compare(t, 0, r, nil)
	})
}

func TestIsAHandler(t *testing.T) {
	for _, handler := range []func(*Buffer, slog.Leveler) *Handler{NewJSON} {
		var got bytes.Buffer
		out := NewBuffer(&got)
		err := slogtest.TestHandler(handler(out, slog.LevelDebug), func() []map[string]any {
			out.Flush()
			var all []map[string]any
			for line := range bytes.Lines(got.Bytes()) {
				m := map[string]any{}
				if err := json.Unmarshal(line, &m); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				all = append(all, m)
			}
			return all
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestLevels(t *testing.T) {
	var got bytes.Buffer
	out := NewBuffer(&got)
	log := slog.New(NewText(out, slog.LevelInfo))
	log.Debug("hidden")
	log.Info("waits")
	if got.Len() != 0 {
		t.Errorf("an Info line went out at once: %q", got.String())
	}
	log.Warn("now")
	if s := got.String(); bytes.Count(got.Bytes(), []byte("\n")) != 2 || bytes.Contains(got.Bytes(), []byte("hidden")) {
		t.Errorf("after a Warn line: %q", s)
	}
}

func BenchmarkCallLine(b *testing.B) {
	for name, h := range map[string]slog.Handler{
		"slog": slog.NewJSONHandler(discard{}, nil), "ours": NewJSON(NewBuffer(discard{}), slog.LevelInfo),
	} {
		b.Run(name, func(b *testing.B) {
			log := slog.New(h).With("part", "router")
			b.ReportAllocs()
			for b.Loop() {
				log.LogAttrs(context.Background(), slog.LevelInfo, "call", slog.String("call", "0123456789abcdef0123456789abcdef"),
					slog.String("tenant", "acme"), slog.String("function", "hello"), slog.String("outcome", "ok"),
					slog.String("transport", "http"), slog.String("key", "0123456789abcdef"), slog.Int64("total_us", 123),
					slog.String("container", "0123456789abcdef0123456789abcdef"), slog.String("start", "warm"), slog.Int64("run_us", 100))
			}
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
