package lane

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnswers(t *testing.T) {
	big := strings.Repeat("x", 3*large)
	set := func(w http.ResponseWriter, name string, values ...string) { w.Header()[name] = values }
	for name, c := range map[string]struct {
		handler func(http.ResponseWriter)
		status  int
		body    string
		header  map[string]string
		ends    bool // the connection
	}{
		"nothing":   {func(http.ResponseWriter) {}, 200, "", map[string]string{"Content-Length": "0"}, false},
		"a status":  {func(w http.ResponseWriter) { w.WriteHeader(404) }, 404, "", map[string]string{"Content-Length": "0"}, false},
		"no length": {func(w http.ResponseWriter) { fmt.Fprint(w, "a"); fmt.Fprint(w, "b") }, 200, "ab", map[string]string{"Content-Length": "2", "Content-Type": "text/plain; charset=utf-8"}, false},
		"length":    {func(w http.ResponseWriter) { set(w, "Content-Length", "2"); fmt.Fprint(w, "ab") }, 200, "ab", map[string]string{"Content-Length": "2"}, false},
		"too little": {func(w http.ResponseWriter) {
			set(w, "Content-Length", "2")
			fmt.Fprint(w, "a")
		}, 200, "a", nil, true},
		"too much": {func(w http.ResponseWriter) {
			set(w, "Content-Length", "1")
			if _, err := io.WriteString(w, "ab"); !errors.Is(err, http.ErrContentLength) {
				t.Error(err)
			}
			fmt.Fprint(w, "c")
		}, 200, "c", nil, false},
		"no content": {func(w http.ResponseWriter) {
			set(w, "Content-Length", "5")
			w.WriteHeader(204)
			if _, err := io.WriteString(w, "ab"); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Error(err)
			}
		}, 204, "", map[string]string{"Content-Length": ""}, false},
		"interim":   {func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(201) }, 201, "", nil, false},
		"twice":     {func(w http.ResponseWriter) { w.WriteHeader(201); w.WriteHeader(500) }, 201, "", nil, false},
		"close":     {func(w http.ResponseWriter) { set(w, "Connection", "close") }, 200, "", map[string]string{"Connection": "close"}, true},
		"large":     {func(w http.ResponseWriter) { set(w, "Content-Length", fmt.Sprint(len(big))); fmt.Fprint(w, big) }, 200, big, nil, false},
		"large too": {func(w http.ResponseWriter) { fmt.Fprint(w, big) }, 200, big, nil, false},
		"values":    {func(w http.ResponseWriter) { set(w, "X", "1", "2") }, 200, "", map[string]string{"X": "1, 2"}, false},
		"a split":   {func(w http.ResponseWriter) { set(w, "X", "a\r\nY: b") }, 200, "", map[string]string{"X": "a  Y: b", "Y": ""}, false},
		"a bad name": {func(w http.ResponseWriter) {
			set(w, "X\r\nY", "1")
			set(w, "X Y", "1")
		}, 200, "", map[string]string{"Y": "", "X": ""}, false},
		"framing": {func(w http.ResponseWriter) {
			set(w, "Transfer-Encoding", "chunked")
			set(w, "Date", "never")
			fmt.Fprint(w, "ab")
		}, 200, "ab", map[string]string{"Transfer-Encoding": ""}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { c.handler(w) })
			for range 2 {
				if _, err := io.WriteString(r.client, post("/a", "x")); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				res, err := http.ReadResponse(r.read, &http.Request{Method: http.MethodPost})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				body, err := io.ReadAll(res.Body)
				if (err != nil) != (name == "too little") || res.StatusCode != c.status || string(body) != c.body {
					t.Errorf("%s: %d %.40q, %v", name, res.StatusCode, body, err)
				}
				for field, want := range c.header {
					if got := strings.Join(res.Header[field], ", "); got != want && !(field == "Connection" && res.Close) {
						t.Errorf("%s: %s %q, want %q", name, field, got, want)
					}
				}
				if len(res.TransferEncoding) > 0 || len(res.Header["Date"]) != 1 || res.Header.Get("Date") == "never" {
					t.Errorf("%s: %q", name, res.Header)
				}
				if c.ends {
					r.closed()
					return
				}
			}
		})
	}
}

// A caller who does not take its answer off does not hold the connection for ever.
func TestAnswersThatAreNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, echo)
		r.send(post("/a", "x"))
		began := time.Now()
		time.Sleep(2*time.Minute + time.Second)
		ended(t, r.server)
		if took := time.Since(began); took > 3*time.Minute {
			t.Errorf("took %s", took)
		}
	})
}
