package hostile

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// usual is the deadline of an attack that never ends; grace is how long after it a call may be answered.
const (
	usual = 600 * time.Millisecond
	grace = 500 * time.Millisecond
)

// attack is one line of the battery: a file, what it is told, and what must come of it.
type attack struct {
	id       string // "A1", "E7 zero"
	file     string // in attacks/
	input    map[string]any
	limit    time.Duration // the call's deadline; 0: usual
	ask      time.Duration // what the call really asks for, where the oracle is tried; 0: limit
	fresh    bool
	http     bool // deployed, and called by its HTTP path
	peaceful bool // no attack at all
	alone    bool // the file stands without what the others share
	// policy of the attacker's tenant, over the defaults.
	policy map[string]any
	// want are the kinds that the answer may have: "ok", or Paddock-Error's, with "/cause" where that matters.
	want []string
	// gone: the container must be destroyed without anybody asking. stays: it must not.
	gone, stays bool
	// only are the isolations that it makes sense on; nil: all.
	only []string
	// hostCPU is how much of one CPU the service may spend while it runs; 0: no matter.
	hostCPU float64
	// before runs on the prepared attacker; after on the outcome, and later while the next attacks run. What these return
	// is wrong.
	before       func(*attempt) error
	after, later func(*attempt) []string
	last         func(*attempt) []string // when its tenant is deleted and its containers are gone
	// strike is the attack, where it is more than one call of the file.
	strike func(*attempt) (answer, error)
}

// group is the letter that it belongs to.
func (a *attack) group() string { return a.id[:1] }

func (a *attack) runsOn(e engine) bool {
	return a.only == nil || slices.Contains(a.only, e.isolation) || slices.Contains(a.only, e.String())
}

// answer is the one answer to a call.
type answer struct {
	status    int
	header    http.Header
	body      []byte
	took      time.Duration
	excess    []byte // what came after it on the same connection
	kind      string // "ok" or the error's, with "/cause" if it has one
	detail    string
	container string
}

// attempt is one attack on one engine.
type attempt struct {
	*battery
	*attack
	tenant    string
	key       string
	container string // that it got to begin with
	host      *inside
	clock     time.Duration // its CPU when the attack began
	clockAt   time.Time
	answer    answer
	seen      chan []string // what a watcher found, at its end
	stopWatch func()
	host0     string // the host's state before
	wrong     []string
}

func (a *attempt) fail(format string, args ...any) {
	a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
}

// source is the attack's file with what all share before it.
func (a *attack) source() (string, error) {
	own, err := attackFiles.ReadFile("attacks/" + a.file)
	if err != nil || a.alone {
		return string(own), err
	}
	lib, err := attackFiles.ReadFile("attacks/lib.js")
	return string(lib) + string(own), err
}

// deadline of the attack's call.
func (a *attack) deadline() time.Duration {
	return cmp.Or(a.limit, usual)
}

// asked is what the call asks for.
func (a *attack) asked() time.Duration { return cmp.Or(a.ask, a.deadline()) }

// launch runs the attack's code, once if there is no more to it.
func (a *attempt) launch() (answer, error) {
	if a.strike != nil {
		return a.strike(a)
	}
	source, err := a.source()
	if err != nil {
		return answer{}, err
	}
	if a.http {
		if err := a.service.deploy(a.tenant, "attack", source); err != nil {
			return answer{}, err
		}
		return a.exchange("GET", httpPath(a.attack, ownStream), http.Header{"Paddock-Timeout": {a.asked().String()}}, nil)
	}
	return a.runSource(source, a.knowledge(a.attack), a.asked(), a.fresh)
}

// httpPath is where an HTTP-shaped attack is called.
func httpPath(a *attack, stream int) string {
	return "/v1/functions/attack/http/?input=" + url.QueryEscape(fmt.Sprintf(`{"how":%q,"stream":%d}`, a.input["how"], stream))
}

// runSource posts source text as the attacker.
func (a *attempt) runSource(source string, input any, limit time.Duration, fresh bool) (answer, error) {
	body, err := json.Marshal(map[string]any{"source": source, "input": input, "timeout": limit.String(), "name": "attack.js", "fresh": fresh})
	if err != nil {
		return answer{}, err
	}
	return a.exchange("POST", "/v1/run", http.Header{"Content-Type": {"application/json"}}, body)
}

// exchange sends one request on a connection of its own and reads the answer, and everything else that comes until the
// service closes the connection.
func (a *attempt) exchange(method, path string, header http.Header, body []byte) (answer, error) {
	u, err := url.Parse(a.service.URL)
	if err != nil {
		return answer{}, err
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(a.asked() + time.Minute))
	var req bytes.Buffer
	fmt.Fprintf(&req, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\nContent-Length: %d\r\n",
		method, path, u.Host, a.key, len(body))
	header.Write(&req)
	req.WriteString("\r\n")
	req.Write(body)
	began := time.Now()
	if _, err := conn.Write(req.Bytes()); err != nil {
		return answer{}, err
	}
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return answer{}, fmt.Errorf("no answer after %v: %w", time.Since(began), err)
	}
	got := answer{status: res.StatusCode, header: res.Header}
	var cut error
	got.body, cut = io.ReadAll(res.Body)
	got.took = time.Since(began)
	got.excess, err = io.ReadAll(in)
	if err != nil && !errors.Is(err, io.EOF) {
		got.detail = err.Error()
	}
	got.container = res.Header.Get("Paddock-Container")
	got.name(cut)
	return got, nil
}

// name tells the kind of an answer. cut is why its body ended early, if it did.
func (g *answer) name(cut error) {
	g.kind = g.header.Get("Paddock-Error")
	if g.kind == "" {
		g.kind = "ok"
		if cut != nil {
			g.kind, g.detail = "cut", cut.Error()
		}
		return
	}
	var problem struct {
		Cause, Detail string
		Thrown        struct{ Name, Message string }
	}
	if err := json.Unmarshal(g.body, &problem); err != nil {
		g.detail = err.Error()
		return
	}
	g.detail = strings.TrimSpace(problem.Detail + " " + problem.Thrown.Name + " " + problem.Thrown.Message)
	if problem.Cause != "" {
		g.kind += "/" + problem.Cause
	}
}

// report is what an attack that only tries things says: what was refused and what was not.
type report struct {
	Held, Broken []string
	Facts        map[string]any
}

func (a *attempt) report() (r report, err error) {
	err = json.Unmarshal(a.answer.body, &r)
	return r, err
}

// held wants everything that the attack tried to have been refused, and at least n things to have been tried.
func held(n int) func(*attempt) []string {
	return func(a *attempt) []string {
		r, err := a.report()
		if err != nil {
			return []string{fmt.Sprintf("the report cannot be read: %v: %.300s", err, a.answer.body)}
		}
		var wrong []string
		for _, b := range r.Broken {
			wrong = append(wrong, "broke through: "+b)
		}
		if len(r.Held) < n {
			wrong = append(wrong, fmt.Sprintf("only %d things were tried, want %d: %q", len(r.Held), n, r.Held))
		}
		return wrong
	}
}

// says wants the answer's body to be exactly this.
func says(want string) func(*attempt) []string {
	return func(a *attempt) []string {
		if string(a.answer.body) != want {
			return []string{fmt.Sprintf("answered %.300s, want %s", a.answer.body, want)}
		}
		return nil
	}
}

// tells wants the error's text to contain this.
func tells(want string) func(*attempt) []string {
	return func(a *attempt) []string {
		if !strings.Contains(a.answer.detail, want) {
			return []string{fmt.Sprintf("the error says %.300q, want %q", a.answer.detail, want)}
		}
		return nil
	}
}

func all(checks ...func(*attempt) []string) func(*attempt) []string {
	return func(a *attempt) (wrong []string) {
		for _, c := range checks {
			wrong = append(wrong, c(a)...)
		}
		return wrong
	}
}

func readAll(r io.Reader) string {
	b, _ := io.ReadAll(r)
	return string(b)
}

func secret(t *testing.T) string {
	t.Helper()
	var b [12]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b[:])
}
