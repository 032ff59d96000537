package link_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"paddock/internal/errs"
	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

const testdata = "../../runtimes/testdata/"

type goldenFrame struct {
	Name   string          `json:"name"`
	From   string          `json:"from"`
	Hex    string          `json:"hex"`
	Type   link.Type       `json:"type"`
	Flags  uint8           `json:"flags"`
	Stream link.StreamID   `json:"stream"`
	Head   json.RawMessage `json:"head"`
	Body   string          `json:"body"`
}

func golden[T any](t testing.TB, name string) (list []T) {
	t.Helper()
	b, err := os.ReadFile(testdata + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("%s holds %d entries only", name, len(list))
	}
	return list
}

var repeated = regexp.MustCompile(`\{([0-9a-f]{2})\*(\d+)\}`)

// unhex decodes hex in which {xx*n} stands for n times the byte xx.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	s = repeated.ReplaceAllStringFunc(s, func(m string) string {
		parts := repeated.FindStringSubmatch(m)
		n, _ := strconv.Atoi(parts[2])
		return strings.Repeat(parts[1], n)
	})
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenFrames(t *testing.T) {
	for _, g := range golden[goldenFrame](t, "frames.json") {
		t.Run(g.Name, func(t *testing.T) {
			side := link.Agent
			if g.From == "host" {
				side = link.Host
			}
			wire := unhex(t, g.Hex)
			for cut := range wire {
				if _, n, err := link.Decode(wire[:cut], side); n != 0 || err != nil {
					t.Fatalf("%d of %d bytes: n %d, %v", cut, len(wire), n, err)
				}
			}
			f, n, err := link.Decode(append(wire, 0xff), side)
			if err != nil || n != len(wire) {
				t.Fatalf("n %d of %d, %v", n, len(wire), err)
			}
			if f.Type != g.Type || f.Flags != g.Flags || f.Stream != g.Stream || !bytes.Equal(f.Body, unhex(t, g.Body)) {
				t.Errorf("decoded %+v", f)
			}
			if !sameJSON(f.Head, g.Head) {
				t.Errorf("head %s, want %s", f.Head, g.Head)
			}
			if again := encode(&f); !bytes.Equal(again, wire) {
				t.Errorf("encoded again\n%x, want\n%x", again, wire)
			}
			if _, _, err := link.Decode(wire, 1-side); err == nil && g.Type != link.TypeData && g.Type != link.TypeWindow {
				t.Error("the other side may send it, too")
			}
		})
	}
}

func encode(f *link.Frame) []byte {
	if !f.Type.HasHead() {
		return link.AppendPlain(nil, f.Type, f.Flags, f.Stream, f.Body)
	}
	head := f.Head
	if f.Size == 4+len(f.Body) {
		head = nil // length 0 stands for {}
	}
	return link.AppendFrame(nil, f.Type, f.Flags, f.Stream, head, f.Body)
}

func sameJSON(a, b []byte) bool {
	if len(a) == 0 || string(b) == "null" {
		return len(a) == 0 && string(b) == "null"
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && equalJSON(x, y)
}

type goldenBreach struct {
	Name  string `json:"name"`
	Hex   string `json:"hex"`
	Why   string `json:"why"`
	State string `json:"state"`
}

func TestGoldenBreaches(t *testing.T) {
	for _, g := range golden[goldenBreach](t, "breaches.json") {
		t.Run(g.Name, func(t *testing.T) {
			wire := unhex(t, g.Hex)
			if g.State == "hello" {
				breachGreeting(t, wire)
				return
			}
			breachOpen(t, wire, g.State == "pipeline")
		})
	}
}

func breachGreeting(t *testing.T, wire []byte) {
	dir := shortDir(t)
	ln, err := link.Listen(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("unix", filepath.Join(dir, link.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.Write(wire)
	if c, err := ln.Accept(context.Background(), link.Options{}); !errors.Is(err, link.ErrBreach) {
		t.Errorf("accepted %v, error %v", c, err)
	}
}

// breachOpen sends wire while one call runs, whose stream wire calls 1, and another that was never sent waits behind it.
func breachOpen(t *testing.T, wire []byte, pipeline bool) {
	running := make(chan *linktest.Call, 1)
	c, a := pair(t, link.Options{StreamWindow: 256 << 10, LogWindow: 256 << 10, LogRate: 1}, linktest.Options{
		Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
			running <- k
			return linktest.Hang(ctx, k)
		},
	})
	settled := make(chan struct{})
	done := make(chan error, 1)
	sink := &recorder{gate: make(chan struct{})} // nothing is granted
	go func() {
		r := request("1")
		r.Via = 1
		if pipeline {
			r = pipelineOf(step("first"), skipped(step("second")), step("third"))
		}
		_, err := c.Do(context.Background(), r, sink, func() { close(settled) })
		done <- err
	}()
	k := <-running
	a.Raw(onStream(wire, k.Stream()))
	select {
	case <-c.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the connection lives on")
	}
	close(sink.gate)
	if !errors.Is(c.Err(), link.ErrBreach) {
		t.Errorf("ended by %v", c.Err())
	}
	if err := <-done; err != nil && !errs.Is(err, errs.Refused) { // the first answer counts, where there is one
		e := wantKind(t, err, errs.SandboxLost, errs.StartedMaybe)
		if e.Cause != "protocol" {
			t.Errorf("cause %q", e.Cause)
		}
	}
	<-settled
	if c.Running() != 0 {
		t.Errorf("running %d", c.Running())
	}
	_, err := c.Do(context.Background(), request("1"), nil, nil)
	if e := wantKind(t, err, errs.SandboxLost, errs.StartedNo); e.Cause != "protocol" {
		t.Errorf("cause %q", e.Cause)
	}
}

// onStream makes the frames of stream 1 frames of stream s, as far as wire can be cut into frames.
func onStream(wire []byte, s link.StreamID) []byte {
	out := bytes.Clone(wire)
	for at := 0; at+10 <= len(out); {
		length := int(binary.BigEndian.Uint32(out[at:]))
		if binary.BigEndian.Uint32(out[at+6:]) == 1 {
			binary.BigEndian.PutUint32(out[at+6:], uint32(s))
		}
		if length > len(out) {
			break
		}
		at += 4 + length
	}
	return out
}

func FuzzDecode(f *testing.F) {
	for _, g := range golden[goldenFrame](f, "frames.json") {
		f.Add(unhex(f, g.Hex))
	}
	for _, g := range golden[goldenBreach](f, "breaches.json") {
		if b := unhex(f, g.Hex); len(b) < 1<<12 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, side := range []link.Side{link.Agent, link.Host} {
			fr, n, err := link.Decode(b, side)
			if n < 0 || n > len(b) || err != nil && n != 0 || err != nil && !errors.Is(err, link.ErrBreach) {
				t.Fatalf("n %d of %d, %v", n, len(b), err)
			}
			if n == 0 {
				continue
			}
			if len(fr.Body) > link.MaxBody || len(fr.Head) > link.MaxHostHead || (fr.Head != nil) != fr.Type.HasHead() {
				t.Fatalf("frame %v: head %d, body %d", fr.Type, len(fr.Head), len(fr.Body))
			}
			if again := encode(&fr); !bytes.Equal(again, b[:n]) {
				t.Fatalf("%x encodes to %x", b[:n], again)
			}
		}
	})
}
