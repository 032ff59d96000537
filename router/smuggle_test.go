package router

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"paddock/internal/call"
)

// talk sends text on a connection of its own and reads answers until the server ends it, or nothing more comes for a while.
// end is io.EOF where the server has ended the connection.
func (g *rig) talk(text string) (answers []*http.Response, end error) {
	g.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, text)
	r := bufio.NewReader(c)
	for {
		_ = c.SetReadDeadline(time.Now().Add(1500 * time.Millisecond)) // beyond the lane's wait for the rest of a request
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			return answers, err
		}
		b, _ := io.ReadAll(res.Body)
		res.Body = io.NopCloser(strings.NewReader(string(b)))
		answers = append(answers, res)
	}
}

// Two readers of one connection, a proxy in front and this router, must not see different requests. Each of these carries a
// second call inside of what one of the two could take for the first one's body: it must never run.
func TestSmuggledRequestsDoNotRun(t *testing.T) {
	g := newRig(t, nil)
	g.cat.functions["acme/smuggled"] = g.cat.functions["acme/echo"]
	ran := make(chan string, 100)
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		ran <- req.Function
		return okResult(req.Body), nil
	}
	auth := "Host: a\r\nAuthorization: " + bearerOf("acme-invoke") + "\r\n"
	inner := "POST /v1/functions/smuggled/invoke HTTP/1.1\r\n" + auth + "Content-Length: 1\r\n\r\n1"
	head := "POST /v1/functions/echo/invoke HTTP/1.1\r\n" + auth
	for name, c := range map[string]struct {
		text string
		runs bool // the first call may run; anything else must be refused
	}{
		"CL.TE": {head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n", 11+len(inner)) + inner, true},
		"TE.CL": {head + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" +
			fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner), true}, // whose body is the inner text: no JSON, no call
		"TE after chunks":         {head + "Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n" + inner, true},
		"TE.TE":                   {head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\n1" + inner, false},
		"TE list":                 {head + "Transfer-Encoding: identity, chunked\r\nContent-Length: 1\r\n\r\n1" + inner, false},
		"TE xchunked":             {head + "Transfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\n1" + inner, false},
		"TE with a tab":           {head + "Transfer-Encoding:\tchunked\r\nContent-Length: 1\r\n\r\n1\r\n1\r\n0\r\n\r\n" + inner, true},
		"TE with a vertical tab":  {head + "Transfer-Encoding: \x0bchunked\r\nContent-Length: 1\r\n\r\n1" + inner, false},
		"TE with a space in name": {head + "Transfer-Encoding : chunked\r\nContent-Length: 1\r\n\r\n1" + inner, false},
		"TE in HTTP/1.0": {strings.Replace(head, "HTTP/1.1", "HTTP/1.0", 1) +
			"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n" + inner, true},
		"two lengths":           {head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n1" + inner, false},
		"lengths in a list":     {head + "Content-Length: 1, 1\r\n\r\n1" + inner, false},
		"a length with a sign":  {head + "Content-Length: +1\r\n\r\n1" + inner, false},
		"a negative length":     {head + "Content-Length: -1\r\n\r\n1" + inner, false},
		"a hexadecimal length":  {head + "Content-Length: 0x1\r\n\r\n1" + inner, false},
		"a length with a space": {head + "Content-Length : 1\r\n\r\n1" + inner, false},
		"an overflowing length": {head + "Content-Length: 18446744073709551617\r\n\r\n1" + inner, false},
		"a folded TE":           {head + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 1\r\n\r\n1\r\n1\r\n0\r\n\r\n" + inner, true},
		"TE in HTTP/1.0, no chunks": {strings.Replace(head, "HTTP/1.1", "HTTP/1.0", 1) +
			"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + inner, true},
		"a bare return":                      {head + "X: 1\rContent-Length: 1\r\n\r\n1" + inner, false},
		"a NUL":                              {head + "X: \x00\r\nContent-Length: 1\r\n\r\n1" + inner, false},
		"a bare line feed in chunk":          {head + "Transfer-Encoding: chunked\r\n\r\n1\n1\r\n0\r\n\r\n" + inner, false},
		"a chunk extension with a line feed": {head + "Transfer-Encoding: chunked\r\n\r\n1;\n1\r\n0\r\n\r\n" + inner, false},
		"a chunk that is too long":           {head + "Transfer-Encoding: chunked\r\n\r\n1\r\n123\r\n0\r\n\r\n" + inner, false},
		"a trailer with a length":            {head + "Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\nContent-Length: 5\r\n\r\n" + inner, true},
		"Connection: close":                  {head + "Connection: close\r\nContent-Length: 1\r\n\r\n1" + inner, true},
		"two hosts":                          {head + "Host: b\r\nContent-Length: 1\r\n\r\n1" + inner, false},
		"no host":                            {"POST /v1/functions/echo/invoke HTTP/1.1\r\nContent-Length: 1\r\n\r\n1" + inner, false},
		"a version from the future":          {strings.Replace(head, "HTTP/1.1", "HTTP/3.1", 1) + "Content-Length: 1\r\n\r\n1" + inner, false},
	} {
		t.Run(name, func(t *testing.T) {
			answers, end := g.talk(c.text)
			if !errors.Is(end, io.EOF) && !strings.Contains(end.Error(), "reset") {
				t.Errorf("the connection goes on after %d answers: %v", len(answers), end)
			}
			for len(ran) > 0 {
				if f := <-ran; f != "echo" || !c.runs {
					t.Errorf("%s ran", f)
				}
			}
			for i, a := range answers {
				if a.StatusCode == 200 && !c.runs || i > 0 {
					t.Errorf("answer %d: %d", i, a.StatusCode)
				}
			}
		})
	}
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

// An absolute target changes neither the route nor who may pass it, and no protocol is changed on request.
func TestTargetsAndUpgrades(t *testing.T) {
	g := newRig(t, nil)
	auth := "Authorization: " + bearerOf("acme-invoke") + "\r\n"
	const body = "Content-Length: 1\r\n\r\n1"
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"absolute":              {"POST http://b/v1/functions/echo/invoke HTTP/1.1\r\nHost: a\r\n" + auth + body, 200},
		"absolute, no key":      {"POST http://b/v1/functions/echo/invoke HTTP/1.1\r\nHost: a\r\n" + body, 401},
		"absolute, another one": {"GET http://127.0.0.1:2379/v3/kv/range HTTP/1.1\r\nHost: a\r\n\r\n", 404},
		"CONNECT":               {"CONNECT 127.0.0.1:2379 HTTP/1.1\r\nHost: a\r\n\r\n", 404},
		"OPTIONS *":             {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404},
		"TRACE":                 {"TRACE /v1/run HTTP/1.1\r\nHost: a\r\n\r\n", 405},
		"h2c": {"POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" +
			"HTTP2-Settings: AAMAAABkAAQAAP__\r\n" + auth + body, 200},
		"websocket": {"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 200},
		"dots":          {"POST /v1/functions/echo/../../run HTTP/1.1\r\nHost: a\r\n" + auth + body, 404},
		"escaped slash": {"POST /v1%2frun HTTP/1.1\r\nHost: a\r\n" + auth + body, 404},
		"two slashes":   {"POST //v1/run HTTP/1.1\r\nHost: a\r\n" + auth + body, 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answers, _ := g.talk(c.text)
			if len(answers) != 1 || answers[0].StatusCode != c.status {
				t.Fatalf("%d answers, %+v, want %d", len(answers), answers, c.status)
			}
			if a := answers[0]; a.Header.Get("Upgrade") != "" || a.ProtoMajor != 1 {
				t.Errorf("%v", a.Header)
			}
		})
	}
}

// Requests back to back are answered in order, each with its own answer, by the lane and beside it.
func TestPipelinedRequests(t *testing.T) {
	g := newRig(t, nil)
	var text strings.Builder
	for i := range 200 {
		unusual := ""
		if i >= 100 {
			unusual = "X-Long: " + strings.Repeat("x", 9000) + "\r\n"
		}
		fmt.Fprintf(&text, "POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\n%sContent-Length: 3\r\n\r\n%03d",
			bearerOf("acme-invoke"), unusual, i+100)
	}
	answers, _ := g.talk(text.String())
	if len(answers) != 200 {
		t.Fatalf("%d answers", len(answers))
	}
	for i, a := range answers {
		if b, _ := io.ReadAll(a.Body); a.StatusCode != 200 || string(b) != fmt.Sprint(i+100) {
			t.Fatalf("%d: %d %s", i, a.StatusCode, b)
		}
	}
	g.idle()
}
