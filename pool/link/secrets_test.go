package link_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/testenv"
	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

// TestSecretsAreTakenOut: values that any call on the connection carried are found in log lines, of calls, cut in two, and of
// nobody, and in errors; answers are the function's own.
func TestSecretsAreTakenOut(t *testing.T) {
	const first, second = "hush-hush-value", "the-next-value"
	var mu sync.Mutex
	var hub []call.LogLine
	c, agent := pair(t, link.Options{OnLog: func(l call.LogLine) {
		mu.Lock()
		defer mu.Unlock()
		hub = append(hub, l)
	}}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		value := k.Secrets["KEY"]
		k.Log("info", "it is "+value+".")
		k.Log("info", "cut: "+value[:9])
		k.Log("info", value[9:]+" and so on")
		if string(k.Body()) == "fail" {
			return nil, &linktest.Thrown{ErrorHead: link.ErrorHead{
				Name: "E" + value, Message: "no " + value, Stack: "at " + value + ":1", Code: []byte(`"` + value + `"`),
			}}
		}
		return []byte(`"` + value + `"`), nil
	}})
	do := func(value, rev, body string) (*call.Result, *recorder, error) {
		r := request(body)
		r.Secrets, r.SecretsRev = map[string]string{"KEY": value, "SHORT": "it"}, rev
		sink := &recorder{}
		res, err := c.Do(context.Background(), r, sink, nil)
		return res, sink, err
	}
	res, sink, err := do(first, "1", "")
	if err != nil || string(res.Value) != `"`+first+`"` {
		t.Fatalf("%v, %v", res, err)
	}
	want := []string{"it is [secret].", "cut: [secret]", "[secret] and so on"}
	for i, l := range sink.logs {
		if i >= len(want) || l.Text != want[i] {
			t.Errorf("line %d: %q", i, l.Text)
		}
	}
	if len(sink.logs) != len(want) {
		t.Errorf("%d lines", len(sink.logs))
	}
	_, _, err = do(second, "2", "fail")
	e := errs.From(err)
	if e.Kind != errs.UserError || e.Thrown.Name != "E[secret]" || e.Thrown.Message != "no [secret]" || e.Thrown.Stack != "at [secret]:1" ||
		e.Thrown.Code != "[secret]" {
		t.Errorf("%+v", e.Thrown)
	}
	agent.Log("info", "left behind: "+first+" "+second) // by a timer of the first call, say
	testenv.Await(t, "the last line", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(hub) == 7
	})
	for _, l := range hub {
		for _, value := range []string{first, second, first[:9], first[9:], second[9:]} {
			if strings.Contains(l.Text, value) {
				t.Errorf("%q is left in %q", value, l.Text)
			}
		}
	}
	if last := hub[6].Text; last != "left behind: [secret] [secret]" {
		t.Errorf("%q", last)
	}
}

// TestLinesFromBeforeAreWithheld: in an adopted container no line is shown before a call has said which secrets there are, and of
// what former calls left behind none ever.
func TestLinesFromBeforeAreWithheld(t *testing.T) {
	const unknown, known = "secret-of-before", "secret-of-now"
	hub := make(chan call.LogLine, 8)
	c, agent := pair(t, link.Options{Adopted: true, OnLog: func(l call.LogLine) { hub <- l }},
		linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
			k.Log("info", "a call: "+k.Secrets["KEY"])
			return []byte("1"), nil
		}})
	expect := func(want string) {
		t.Helper()
		if l := <-hub; l.Text != want || l.Tenant != "acme" {
			t.Errorf("%q of %q, want %q", l.Text, l.Tenant, want)
		}
	}
	const withheld = "[withheld: it comes from before the service was started again, and may hold secrets]"
	agent.Log("info", "nobody's: "+unknown)
	expect(withheld)
	agent.LogFormer("info", "a timer's: "+unknown)
	expect(withheld)
	r := request("")
	r.Secrets, r.SecretsRev = map[string]string{"KEY": known}, "1"
	if _, err := c.Do(context.Background(), r, nil, nil); err != nil {
		t.Fatal(err)
	}
	expect("a call: [secret]")
	agent.Log("info", "nobody's: "+known)
	expect("nobody's: [secret]")
	agent.LogFormer("info", "a timer's, still: "+unknown)
	expect(withheld)
}
