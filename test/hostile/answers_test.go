package hostile

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// malformed are the kinds of e7-malformed.js.
var malformed = []string{"huge", "negative", "zero", "short", "overlong", "head beyond", "no head", "bad json", "array head", "deep json",
	"wrong types", "unknown outcome", "unknown type", "type zero", "unknown flag", "of the host", "welcome", "hello again", "pong",
	"loaded unasked", "window overflow", "cancelled unasked", "data first", "settled first", "status 101", "log flood", "log level",
	"random", "text"}

// E: answers. The agent's connection is in the attacker's hands.
var answerAttacks = append([]attack{
	{id: "E1 all", file: "e1-patched.js", limit: 2 * time.Second, want: append(answered, "user_error", "timeout", "sandbox_lost/protocol", "sandbox_lost/crashed")},
	{id: "E1 then", file: "e1-patched.js", input: in("how", "then"), limit: 2 * time.Second, want: append(answered, "user_error", "timeout", "sandbox_lost/protocol", "sandbox_lost/crashed")},
	{id: "E2 never opened", file: "e2-forged-result.js", input: in("streams", []int{999}), limit: 5 * time.Second, want: protocol, gone: true},
	{id: "E2 finished", file: "e2-forged-result.js", input: in("streams", []int{2}), limit: 5 * time.Second, want: protocol, gone: true},
	{id: "E2 of the link", file: "e2-forged-result.js", input: in("streams", []int{0}), limit: 5 * time.Second, want: protocol, gone: true},
	{id: "E2 of a load", file: "e2-forged-result.js", input: in("streams", []int{3}), limit: 5 * time.Second, want: protocol, gone: true},
	{id: "E3 twice", file: "e3-twice.js", input: in("how", "twice"), limit: 5 * time.Second, want: append(answered, protocol...), gone: true},
	{id: "E3 then-data", file: "e3-twice.js", input: in("how", "then-data"), limit: 5 * time.Second, want: append(answered, protocol...), gone: true},
	{id: "E3 then-head", file: "e3-twice.js", input: in("how", "then-head"), limit: 5 * time.Second, want: append(answered, protocol...), gone: true},
	{id: "E3 settled-twice", file: "e3-twice.js", input: in("how", "settled-twice"), limit: 5 * time.Second, want: append(answered, protocol...), gone: true},
	{id: "E3 then-agent", file: "e3-twice.js", input: in("how", "then-agent"), limit: 5 * time.Second, want: answered, after: says(`"first"`), gone: true},
	{id: "E4", file: "e4-late.js", limit: 500 * time.Millisecond, want: timeout, after: nextIsWell},
	{id: "E5", file: "e5-next.js", limit: 5 * time.Second, want: protocol, gone: true},
	{id: "E7 truncated", file: "e7-truncated.js", want: timeout, gone: true},
	{id: "E8 value", file: "e8-large.js", input: in("how", "value"), limit: 5 * time.Second, want: tooLarge, stays: true},
	{id: "E8 list", file: "e8-large.js", input: in("how", "list"), limit: 10 * time.Second, want: append(tooLarge, outOfMemory...)},
	{id: "E8 forged", file: "e8-large.js", input: in("how", "forged"), limit: 10 * time.Second, want: append(tooLarge, protocol...), gone: true},
	{id: "E10 crlf", file: "e10-head.js", http: true, input: in("how", "crlf"), limit: 3 * time.Second, want: append(answered, protocol...), after: all(cleanHead, inStep)},
	{id: "E10 encoding", file: "e10-head.js", http: true, input: in("how", "encoding"), limit: 3 * time.Second, want: append(answered, protocol...), after: all(cleanHead, inStep)},
	{id: "E10 length", file: "e10-head.js", http: true, input: in("how", "length"), limit: 3 * time.Second, want: append(answered, "cut", "sandbox_lost/protocol"), after: inStep},
	{id: "E10 status 99", file: "e10-head.js", http: true, input: in("how", "status 99"), limit: 3 * time.Second, want: protocol, gone: true, after: inStep},
	{id: "E10 status 101", file: "e10-head.js", http: true, input: in("how", "status 101"), limit: 3 * time.Second, want: protocol, gone: true},
	{id: "E10 status 1000", file: "e10-head.js", http: true, input: in("how", "status 1000"), limit: 3 * time.Second, want: protocol, gone: true},
	{id: "E10 no status", file: "e10-head.js", http: true, input: in("how", "no status"), limit: 3 * time.Second, want: protocol, gone: true},
	{id: "E10 many", file: "e10-head.js", http: true, input: in("how", "many"), limit: 3 * time.Second, want: append(answered, protocol...), after: all(cleanHead, inStep)},
	{id: "E11", file: "e10-head.js", http: true, input: in("how", "reserved"), limit: 3 * time.Second, want: answered, after: all(cleanHead, inStep)},
	{id: "E12 console", file: "e12-output.js", input: in("how", "console"), limit: 5 * time.Second, want: answered, after: says(`"alive"`), stays: true, hostCPU: 0.5},
	{id: "E12 streams", file: "e12-output.js", input: in("how", "streams"), limit: 5 * time.Second, want: answered, after: says(`"alive"`), stays: true, hostCPU: 0.5},
	{id: "E12 lines", file: "e12-output.js", input: in("how", "lines"), limit: 5 * time.Second, want: answered, after: says(`"alive"`), stays: true, hostCPU: 0.5},
	{id: "E12 descriptor", file: "e12-output.js", input: in("how", "descriptor"), limit: 5 * time.Second, want: answered, after: says(`"alive"`), stays: true, hostCPU: 0.5},
	{id: "E12 last words", file: "e12-crash-words.js", limit: 5 * time.Second, want: crashed, gone: true},
	{id: "E17", file: "e17-looks.js", limit: 20 * time.Second, want: append(answered, "output_too_large", "out_of_memory"), after: seesNothing},
	{id: "E18 window", file: "e18-flood.js", input: in("how", "window"), limit: time.Second, want: append(timeout, protocol...), gone: true, hostCPU: 0.5},
	{id: "E18 past", file: "e18-flood.js", input: in("how", "past"), limit: time.Second, want: append(timeout, protocol...), gone: true, hostCPU: 0.5},
	{id: "E18 data", file: "e18-flood.js", input: in("how", "data"), limit: time.Second, want: append(timeout, protocol...), gone: true, hostCPU: 0.5},
	{id: "E18 tiny", file: "e18-flood.js", input: in("how", "tiny"), limit: time.Second, want: append(timeout, "sandbox_lost/protocol", "output_too_large"), gone: true, hostCPU: 0.5},
	{id: "E19 read", file: "e19-steal.js", input: in("how", "read"), want: append(timeout, protocol...), gone: true},
	{id: "E19 close", file: "e19-steal.js", input: in("how", "close"), limit: 5 * time.Second, want: append(protocol, crashed...), gone: true},
	{id: "E19 replace", file: "e19-steal.js", input: in("how", "replace"), limit: 5 * time.Second, want: append(protocol, crashed...), gone: true},
	{id: "E19 child", file: "e19-steal.js", input: in("how", "child"), limit: 5 * time.Second, want: append(answered, protocol...), gone: true},
	{id: "E5 ten thousand", file: "e5-poison.js", want: answered, strike: poison},
	{id: "E15 large", file: "e15-grpc.js", want: []string{"ResourceExhausted"}, strike: overGRPC("large")},
	{id: "E15 metadata", file: "e15-grpc.js", want: []string{"ResourceExhausted", "Internal", "Unavailable", "Unauthenticated"}, strike: overGRPC("metadata")},
	{id: "E15 open", file: "e15-grpc.js", limit: time.Second, want: []string{"DeadlineExceeded", "timeout", "ResourceExhausted"}, strike: overGRPC("open")},
	{id: "E15 streams", file: "e15-grpc.js", want: []string{"bounded"}, strike: overGRPC("streams")},
	{id: "E16 loop", file: "e16-check.js", limit: 300 * time.Millisecond, want: []string{"timeout", "limited"}, strike: checks("loop")},
	{id: "E16 fail", file: "e16-check.js", limit: 3 * time.Second, want: userError, strike: checks("fail"), stays: true},
	{id: "E16 flap", file: "e16-check.js", limit: 300 * time.Millisecond, want: []string{"timeout", "ok", "limited"}, strike: checks("flap")},
	{id: "E16 lie", file: "e16-check.js", limit: 3 * time.Second, want: answered, strike: checks("lie"), stays: true},
	{id: "E16 die", file: "e16-check.js", limit: time.Second, want: append(crashed, "limited", "timeout"), strike: checks("die")},
	{id: "E20", file: "e20-endless-answer.js", http: true, limit: 1500 * time.Millisecond, want: []string{"cut"}, strike: neverRead},
	{id: "E21 large", file: "e21-error-bomb.js", input: in("how", "large"), limit: 10 * time.Second, want: append(userError, "out_of_memory", "output_too_large"), after: shortError},
	{id: "E21 deep", file: "e21-error-bomb.js", input: in("how", "deep"), limit: 10 * time.Second, want: append(userError, timeout...), after: shortError},
	{id: "E21 circular", file: "e21-error-bomb.js", input: in("how", "circular"), limit: 5 * time.Second, want: userError, after: shortError, stays: true},
	{id: "E21 accessors", file: "e21-error-bomb.js", input: in("how", "accessors"), limit: 5 * time.Second, want: userError, after: shortError, stays: true},
	{id: "E21 spin", file: "e21-error-bomb.js", input: in("how", "accessors", "spin", true), want: timeout, gone: true},
	{id: "E21 symbol", file: "e21-error-bomb.js", input: in("how", "symbol"), limit: 5 * time.Second, want: userError, after: shortError, stays: true},
	{id: "E21 surrogates", file: "e21-error-bomb.js", input: in("how", "surrogates"), limit: 5 * time.Second, want: userError, after: shortError, stays: true},
	{id: "E22", file: "e0-echo.js", limit: 5 * time.Second, want: append(answered, "invalid"), strike: namedBadly},
	{id: "E19 connect", file: "e19-steal.js", input: in("how", "connect"), limit: 5 * time.Second, want: answered, after: held(1), stays: true},
}, malformedAttacks()...)

func malformedAttacks() (list []attack) {
	for _, how := range malformed {
		list = append(list, attack{id: "E7 " + how, file: "e7-malformed.js", input: in("how", how), limit: 5 * time.Second, want: protocol, gone: true})
	}
	return list
}

// S: the sockets' directory.
var socketAttacks = []attack{
	{id: "S1", file: "s1-directory.js", limit: 5 * time.Second, want: answered, after: held(16), stays: true},
	{id: "S5", file: "s5-identity.js", limit: 10 * time.Second, want: answered, before: canaryMayGo, after: all(held(12), nobodyCame), last: canaryStays, stays: true},
	{id: "S3", file: "s3-others.js", limit: 5 * time.Second, want: answered, after: held(8), stays: true},
}

// everywhere is the widest egress that a tenant can get without naming what is private.
var everywhere = map[string]any{"egress": map[string]any{"hosts": []string{"*:*"}}}

// N: the network.
var networkAttacks = []attack{
	{id: "N1", file: "n1-direct.js", limit: 10 * time.Second, want: answered, after: all(held(10), nothingConnected), stays: true},
	{id: "N3", file: "n3-names.js", limit: 15 * time.Second, want: answered, after: held(13), stays: true},
	{id: "N4", file: "n4-proxy.js", policy: everywhere, limit: 20 * time.Second, want: answered, after: all(held(20), nothingConnected), stays: true},
	{id: "N5", file: "n5-addresses.js", policy: everywhere, limit: 20 * time.Second, want: answered, after: all(held(110), nothingConnected), stays: true},
	{id: "N8", file: "n8-ports.js", policy: everywhere, limit: 10 * time.Second, want: answered, before: mayReachTheService, after: held(21), stays: true},
	{id: "N2", file: "n2-sockets.js", limit: 5 * time.Second, want: answered, before: deliverProbe, after: held(60), stays: true},
	{id: "N6", file: "n6-redirect.js", limit: 10 * time.Second, want: answered, before: mayGo, after: all(held(9), nothingConnected), stays: true},
	{id: "N10 kept", file: "n10-kept-tunnel.js", limit: 10 * time.Second, want: answered, before: mayGo, after: held(1), last: tunnelsEnded},
	{id: "N10", file: "n10-flood.js", policy: everywhere, limit: 10 * time.Second, want: answered, after: held(2), stays: true},
}

// cleanHead wants no field in the answer that a function may not set.
func cleanHead(at *attempt) (wrong []string) {
	h := at.answer.header
	for _, name := range []string{"X-Injected", "Upgrade", "Trailer", "Keep-Alive", "Set-Cookie", "Access-Control-Allow-Origin",
		"Strict-Transport-Security", "Grpc-Status", "X-Accel-Redirect", "Clear-Site-Data", "Paddock-Tenant"} {
		if v, found := h[name]; found {
			wrong = append(wrong, fmt.Sprintf("the answer has %s: %q", name, v))
		}
	}
	if strings.Contains(h.Get("Paddock-Call-Id"), "forged") || h.Get("Server-Timing") == "x" {
		wrong = append(wrong, "the answer has a forged field of the router's")
	}
	if n := len(h); n > 160 {
		wrong = append(wrong, fmt.Sprintf("the answer has %d fields", n))
	}
	if at.answer.kind == "ok" && string(at.answer.body) != "body" {
		wrong = append(wrong, fmt.Sprintf("the body is %.100q", at.answer.body))
	}
	return wrong
}

// inStep makes the call again on a connection that goes on, and wants the next answer there to be that of the next request.
func inStep(at *attempt) []string {
	u, err := url.Parse(at.service.URL)
	if err != nil {
		return []string{err.Error()}
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return []string{err.Error()}
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(15 * time.Second))
	path := httpPath(at.attack, ownStream+1)
	in := bufio.NewReader(conn)
	for _, r := range []string{path, "/healthz"} {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nPaddock-Timeout: 1s\r\n\r\n", r, at.key)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			if r == path {
				continue
			}
			return nil // it was closed: in step
		}
		body, err := io.ReadAll(res.Body)
		if r == "/healthz" && (err != nil || res.StatusCode != 200 || res.Header.Get("X-Injected") != "" || strings.Contains(string(body), "body")) {
			return []string{fmt.Sprintf("the answer behind it was %s %.100q", res.Status, body)}
		}
		if err != nil || res.Close {
			return nil
		}
	}
	return nil
}

// seesNothing wants nothing in what the attacker sees to be more than its own.
func seesNothing(at *attempt) (wrong []string) {
	text := string(at.answer.body)
	for _, s := range []string{"canary", at.service.key, "operator.key", "/private"} {
		if strings.Contains(text, s) {
			wrong = append(wrong, fmt.Sprintf("it sees %q", s))
		}
	}
	return wrong
}

// nothingConnected wants the host's listeners to have seen nobody.
func nothingConnected(at *attempt) []string {
	if n := at.net.seen.Load(); n > 0 {
		return []string{fmt.Sprintf("a listener on the host saw %d connections", n)}
	}
	return nil
}
