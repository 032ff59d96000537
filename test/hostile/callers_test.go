package hostile

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// K: callers. They hold keys of the attacker's tenant, up to that of its admin. Who may do what at all is the router's own matrix.
var callerAttacks = []attack{
	{id: "K2", file: "k2-names.js", want: answered, strike: badNames, after: held(60), stays: true},
	{id: "K3", file: "k3-bodies.js", want: answered, strike: bombs, after: held(9), stays: true},
	{id: "K4", file: "k4-uploads.js", want: answered, strike: badUploads, after: held(7), stays: true},
	{id: "K5", file: "k5-races.js", policy: map[string]any{"maxFunctions": 1}, want: answered, strike: races, after: held(3), stays: true},
	{id: "K7", file: "k7-changes.js", want: answered, strike: changes, after: held(4)},
}

// keyOf makes a key of a role for the attacker's tenant.
func (at *attempt) keyOf(role string) (string, error) {
	var made struct{ Secret string }
	err := at.service.operator("POST", "/v1/keys", "", map[string]any{"tenant": at.tenant, "role": role, "owner": role}, &made)
	return made.Secret, err
}

// send makes a request with one of the attacker's keys.
func (at *attempt) send(key, method, path, kind string, body []byte, more ...string) (status int, text string, err error) {
	req, err := http.NewRequest(method, at.service.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", kind)
	for i := 0; i < len(more); i += 2 {
		req.Header.Set(more[i], more[i+1])
	}
	res, err := at.service.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, string(got), err
}

const (
	javaScript = "application/javascript"
	jsonType   = "application/json"
)

// refusals are what a bad request may be answered with.
var refusals = []int{400, 401, 403, 404, 405, 409, 411, 413, 414, 415, 422, 431}

// badNames gives functions, secrets, keys and tenants names that mean something elsewhere. None may come to be.
func badNames(at *attempt) (answer, error) {
	admin, err := at.keyOf("tenant-admin")
	if err != nil {
		return answer{}, err
	}
	source, err := at.source()
	if err != nil {
		return answer{}, err
	}
	var r report
	for _, name := range []string{"..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%2fb", "a%00b", "a%0ab", "a%0d%0aX-Injected:%201", "%d0%b0dmin", "a%e2%80%aeb", "a%20b", "%ff", "-x", ".hidden", "A.B/C",
		"%25s%25n", strings.Repeat("a", 300), strings.Repeat("a", 1<<20), "%5c..%5cx", "a;b", "%7b%7d"} {
		short := name[:min(len(name), 40)]
		status, text, err := at.send(admin, "PUT", "/v1/functions/"+name, javaScript, []byte(source))
		r.judge(slices.Contains(refusals, status), "function %s: %d %.100s %v", short, status, text, err) // err: the answer was cut short
		status, text, err = at.send(admin, "PUT", "/v1/secrets/"+name, jsonType, []byte(`{"value":"eA=="}`))
		r.judge(slices.Contains(refusals, status), "secret %s: %d %.100s %v", short, status, text, err)
	}
	for _, name := range []string{"..", "a/b", "a\x00b", "a\nb", "аdmin", "a\u202eb", "a b", "-x", strings.Repeat("a", 300), "NODE_OPTIONS=--inspect", "../" + canaryTenant, canaryTenant + "\x00", "paddock/x"} {
		text := at.service.operator("POST", "/v1/tenants", "", map[string]any{"id": name}, nil)
		r.judge(text != nil && strings.Contains(text.Error(), ": 400 "), "tenant %.40q: %.200v", name, text)
		body, _ := json.Marshal(map[string]any{"tenant": name, "role": "invoke"})
		status, said, err := at.send(admin, "POST", "/v1/keys", jsonType, body)
		r.judge(err == nil && slices.Contains(refusals, status), "a key of tenant %.40q: %d %.100s %v", name, status, said, err)
	}
	var list struct{ Functions []struct{ Name string } }
	err = at.service.operator("GET", "/v1/functions", at.tenant, nil, &list)
	r.judge(err == nil && len(list.Functions) == 0, "functions that came to be: %v %v", list.Functions, err)
	return told(r)
}

// bombs are bodies that are small on their way and large, or deep, where somebody unpacks them.
func bombs(at *attempt) (answer, error) {
	source, err := at.source()
	if err != nil {
		return answer{}, err
	}
	if err := at.service.deploy(at.tenant, "attack", source); err != nil {
		return answer{}, err
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 64<<20))
	_ = z.Close()
	const invoke = "/v1/functions/attack/invoke"
	deep := []byte(strings.Repeat("[", 1<<20))
	var r report
	for _, b := range []struct {
		name, path, kind string
		body             []byte
		more             []string
		may              []int
	}{
		{"gzip bomb", invoke, jsonType, zipped.Bytes(), []string{"Content-Encoding", "gzip"}, []int{400, 415}},
		{"gzip bomb, said to be plain", invoke, jsonType, zipped.Bytes(), nil, []int{400}},
		{"other codings", invoke, jsonType, []byte("1"), []string{"Content-Encoding", "br, gzip"}, []int{400, 415}},
		{"beyond the limit", invoke, jsonType, append(append([]byte(`"`), bytes.Repeat([]byte("x"), 7<<20)...), '"'), nil, []int{413}},
		{"deep, never closed", invoke, jsonType, deep, nil, []int{400}},
		{"deep and closed", invoke, jsonType, append(bytes.Clone(deep), bytes.Repeat([]byte("]"), 1<<20)...), nil, []int{400, 500}}, // 500: it is the code that fails over it
		{"deep source", "/v1/run", jsonType, append([]byte(`{"source":`), deep...), nil, []int{400}},
		{"twice the same key, a thousand times", invoke, jsonType, []byte("{" + strings.Repeat(`"__proto__":{"polluted":1},`, 1000) + `"a":1}`), nil, []int{200, 400}},
		{"not UTF-8", invoke, jsonType, []byte("\"\xff\xfe\""), nil, []int{200, 400}},
		{"a type that is none", "/v1/run", "application/x-tar", []byte("x"), nil, []int{400, 415}},
	} {
		began := time.Now()
		status, text, err := at.send(at.key, "POST", b.path, b.kind, b.body, b.more...)
		r.judge(err == nil && slices.Contains(b.may, status), "%s: %d %.200s %v", b.name, status, text, err)
		if took := time.Since(began); took > 10*time.Second+at.pulse.slack(began) {
			r.Broken = append(r.Broken, fmt.Sprintf("%s: answered after %v", b.name, took))
		}
	}
	return told(r)
}

// badUploads deploys what is no source text, or too much of it.
func badUploads(at *attempt) (answer, error) {
	key, err := at.keyOf("deploy")
	if err != nil {
		return answer{}, err
	}
	var r report
	big := []byte("module.exports = () => 1 // " + strings.Repeat("x", 2<<20))
	for name, body := range map[string][]byte{
		"zip":                        []byte("PK\x03\x04\x14\x00\x00\x00\x08\x00../../../../etc/cron.d/x"),
		"tar with a link":            append([]byte("x\x00\x00\x002/etc/shadow"), make([]byte, 512)...),
		"gzip":                       {0x1f, 0x8b, 8, 0, 0, 0, 0, 0},
		"cached data of V8":          {0xde, 0xc0, 0x17, 0x01, 0, 0, 0, 0},
		"more than a megabyte":       big,
		"more than the store's most": append(bytes.Clone(big), big...),
		"not UTF-8":                  []byte("module.exports = () => '\xff\xfe'"),
		"nothing":                    {},
	} {
		status, text, err := at.send(key, "PUT", "/v1/functions/attack", javaScript, body)
		if err == nil && status == 200 { // it is bytes, kept by their hash; nobody has unpacked them, and they do not compile
			status, text, err = at.send(at.key, "POST", "/v1/functions/attack/invoke", jsonType, []byte("1"))
		}
		r.judge(err == nil && slices.Contains(refusals, status), "%s: %d %.150s %v", name, status, text, err)
	}
	status, text, err := at.send(key, "PUT", "/v1/functions/attack", "application/zip", []byte("PK"))
	r.judge(err == nil && slices.Contains(refusals, status), "as an archive: %d %.150s %v", status, text, err)
	return told(r)
}

// races deploys many functions at the same moment where there is room for one, and makes many keys for an owner who may have two.
func races(at *attempt) (answer, error) {
	const tries = 40
	deploy, err := at.keyOf("deploy")
	if err != nil {
		return answer{}, err
	}
	admin, err := at.keyOf("tenant-admin")
	if err != nil {
		return answer{}, err
	}
	source, err := at.source()
	if err != nil {
		return answer{}, err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	deployed, keys, odd := 0, 0, []string(nil)
	count := func(n *int, status int, text string, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil && status == 200:
			*n++
		case err != nil || status >= 500:
			odd = append(odd, fmt.Sprintf("%d %.100s %v", status, text, err))
		}
	}
	for n := range tries {
		all.Go(func() {
			status, text, err := at.send(deploy, "PUT", fmt.Sprintf("/v1/functions/f%d", n), javaScript, []byte(source))
			count(&deployed, status, text, err)
		})
		all.Go(func() {
			status, text, err := at.send(admin, "POST", "/v1/keys", jsonType, []byte(`{"role":"invoke","owner":"one"}`))
			count(&keys, status, text, err)
		})
	}
	all.Wait()
	var r report
	r.judge(deployed == 1, "%d of %d functions were deployed, room was for 1", deployed, tries)
	r.judge(keys == 2, "%d of %d keys were made for one owner, who may have 2", keys, tries)
	r.judge(len(odd) == 0, "answers that are nobody's fault: %q", odd)
	return told(r)
}

// changes deploys another version and sets another secret under a call. The call ends as what it began as; the next is the new one.
func changes(at *attempt) (answer, error) {
	source, err := at.source()
	if err != nil {
		return answer{}, err
	}
	version := func(v string) error {
		return at.service.deploy(at.tenant, "attack", strings.Replace(source, "VERSION", v, 1))
	}
	set := func(v string) error {
		return at.service.operator("PUT", "/v1/secrets/TOKEN", at.tenant, map[string]any{"value": v}, nil)
	}
	if err := set("old"); err != nil {
		return answer{}, err
	}
	if err := version("one"); err != nil {
		return answer{}, err
	}
	var r report
	call := func(pause int) string {
		status, text, err := at.send(at.key, "POST", "/v1/functions/attack/invoke?timeout=20s", jsonType, fmt.Appendf(nil, `{"pause":%d}`, pause))
		if err != nil || status != 200 {
			return fmt.Sprintf("%d %.200s %v", status, text, err)
		}
		return text
	}
	const one, two = `{"version":"one","secret":"old","still":"old"}`, `{"version":"two","secret":"new","still":"new"}`
	first := call(0)
	r.judge(first == one, "before: %s", first)
	under := make(chan string, 1)
	go func() { under <- call(3000) }()
	time.Sleep(500 * time.Millisecond) // it runs, on this machine or it will be told below
	if err := set("new"); err != nil {
		return answer{}, err
	}
	if err := version("two"); err != nil {
		return answer{}, err
	}
	next := call(0)
	r.judge(next == two, "the next call: %s", next)
	still := <-under
	r.judge(still == one, "the call under way: %s", still)
	if err := at.service.operator("DELETE", "/v1/functions/attack", at.tenant, nil, nil); err != nil {
		return answer{}, err
	}
	status, text, err := at.send(at.key, "POST", "/v1/functions/attack/invoke", jsonType, []byte("{}"))
	r.judge(err == nil && status == 404, "after it was deleted: %d %.100s %v", status, text, err)
	return told(r)
}
