package hostile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"paddock/pool/cgroup"
)

// Attacks that are more than one call.

// crowd is how many tenants eat memory at once: together they want more than there is for all.
const crowd = 24

// everyone has many tenants eat memory at the same time, and looks at what the sandboxes hold together meanwhile. Each must hear
// a kind of its own, and the kernel must not have run out of memory as a whole.
func everyone(at *attempt) (answer, error) {
	groups, err := cgroup.Detect()
	if err != nil {
		return answer{}, err
	}
	parent := groups.At("paddock/" + at.service.id)
	limits, err := parent.Limits()
	if err != nil {
		return answer{}, err
	}
	kernel, err := openKernelLog()
	if err != nil {
		return answer{}, err
	}
	defer kernel.Close()
	// Nobody has a share to spare now: the canary rests, and may have lost its container to those who came.
	at.canary.end()
	defer func() {
		at.canary.container = ""
		at.canary.resume()
	}()
	var most int64
	stop, looked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(looked)
		for {
			if u, err := parent.Usage(); err == nil {
				most = max(most, u.MemoryBytes)
			}
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	source, err := at.source()
	if err != nil {
		return answer{}, err
	}
	r := report{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for n := range crowd {
		all.Go(func() {
			one := *at
			one.tenant = fmt.Sprintf("%s-%d", at.tenant, n)
			kind, err := one.joins(source, n)
			fine := err == nil && slices.Contains([]string{"out_of_memory", "no_capacity", "limited", "timeout"}, kind)
			mu.Lock()
			defer mu.Unlock()
			r.judge(fine, "tenant %d: %s %v", n, kind, err)
		})
	}
	all.Wait()
	close(stop)
	<-looked
	r.judge(limits.MemoryBytes > 0 && most <= limits.MemoryBytes, "together they held %d MiB of %d", most>>20, limits.MemoryBytes>>20)
	whole := kernel.since("Out of memory: Kill")
	r.judge(len(whole) == 0, "the kernel killed for want of memory of its own: %q", whole)
	at.service.http.CloseIdleConnections()
	next, err := at.runSource(`module.exports = () => 'well'`, nil, 30*time.Second, false)
	r.judge(err == nil && next.kind == "ok", "a call afterwards: %s %v", next.kind, err)
	return told(r)
}

// joins makes a tenant, runs the source as it, deletes it, and returns what kind of end the call had.
func (a *attempt) joins(source string, n int) (kind string, err error) {
	if a.key, err = a.service.admit(a.tenant, nil); err != nil {
		return "", err
	}
	got, err := a.runSource(source, map[string]any{"n": n}, a.asked(), false)
	return got.kind, cmp.Or(err, a.service.operator("DELETE", "/v1/tenants/"+a.tenant, "", nil, nil))
}

func (r *report) judge(fine bool, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if fine {
		r.Held = append(r.Held, text)
	} else {
		r.Broken = append(r.Broken, text)
	}
}

// told is a report as an answer.
func told(r report) (answer, error) {
	body, err := json.Marshal(r)
	return answer{kind: "ok", body: body}, err
}

// kernelLog reads what the kernel says from now on.
type kernelLog struct{ *os.File }

func openKernelLog() (kernelLog, error) {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return kernelLog{}, err
	}
	_, err = f.Seek(0, io.SeekEnd)
	return kernelLog{f}, err
}

// since returns the records that contain text.
func (k kernelLog) since(text string) (found []string) {
	fd := int(k.Fd()) // reading by the descriptor: each read is one record, and the end is EAGAIN
	record := make([]byte, 8<<10)
	for {
		n, err := unix.Read(fd, record)
		switch {
		case errors.Is(err, unix.EPIPE):
			continue // overwritten before it was read
		case err != nil || n == 0:
			return found
		case strings.Contains(string(record[:n]), text):
			found = append(found, string(record[:n]))
		}
	}
}

// againAndAgain calls the same code, which never gets through its own loading, until it is refused.
func againAndAgain(at *attempt) (got answer, err error) {
	source, err := at.source()
	if err != nil {
		return got, err
	}
	began := time.Now()
	for n := range 20 {
		if got, err = at.runSource(source, nil, at.asked(), false); err != nil || got.kind == "limited/quarantine" {
			return got, err
		}
		if !slices.Contains([]string{"timeout", "limited", "no_capacity"}, got.kind) {
			return got, fmt.Errorf("run %d ended as %s: %s", n, got.kind, got.detail)
		}
		time.Sleep(200 * time.Millisecond)
	}
	return got, fmt.Errorf("it was never refused in %v", time.Since(began))
}

// poison makes ten thousand calls to code that speaks out of turn after each answer. No call may get another's.
func poison(at *attempt) (answer, error) {
	const calls, callers = 10000, 8
	source, err := at.source()
	if err != nil {
		return answer{}, err
	}
	if err := at.service.deploy(at.tenant, "attack", source); err != nil {
		return answer{}, err
	}
	policy := map[string]any{"ratePerSecond": 100000, "rateBurst": 100000}
	if err := at.service.operator("PATCH", "/v1/tenants/"+at.tenant, "", map[string]any{"policy": policy}, nil); err != nil {
		return answer{}, err
	}
	var mu sync.Mutex
	kinds, wrong := map[string]int{}, []string(nil)
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for n := caller; n < calls; n += callers {
				kind, body, err := at.ask(n)
				mu.Lock()
				if kinds[kind]++; err != nil || kind == "" && body != fmt.Sprintf(`{"nonce":"nonce-%d"}`, n) {
					wrong = append(wrong, fmt.Sprintf("call %d: %s %v", n, body, err))
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	got := answer{kind: "ok"}
	if len(wrong) > 0 || kinds[""] < calls*9/10 {
		got.kind, got.detail = "poisoned", fmt.Sprintf("%d of %d answers were wrong, kinds %v: %.500q", len(wrong), calls, kinds, wrong)
	}
	return got, nil
}

// ask calls the deployed attack as its tenant. kind is "" where it answered.
func (at *attempt) ask(n int) (kind, body string, err error) {
	req, err := http.NewRequest("POST", at.service.URL+"/v1/functions/attack/invoke?timeout=20s", strings.NewReader(fmt.Sprintf(`{"nonce":"nonce-%d","n":%d}`, n, n)))
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Authorization", "Bearer "+at.key)
	res, err := at.service.http.Do(req)
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	return res.Header.Get("Paddock-Error"), readAll(res.Body), nil
}

// checks runs a health check that misbehaves, ten times a second as a monitor might. Its tenant pays for it, and nobody else: no
// more containers than the tenant's claims allow.
func checks(how string) func(*attempt) (answer, error) {
	return func(at *attempt) (answer, error) {
		const runs, every = 15, 100 * time.Millisecond
		source, err := at.source()
		if err != nil {
			return answer{}, err
		}
		began := time.Now()
		containers := map[string]bool{}
		var last answer
		for n := range runs {
			tick := time.Now()
			if last, err = at.runSource(source, map[string]any{"how": how, "n": n}, at.asked(), false); err != nil {
				return last, err
			}
			if last.kind == "no_capacity" { // a new container is slower in coming than the check's deadline
				last.kind = at.want[0]
			}
			if kind, _, _ := strings.Cut(last.kind, "/"); !slices.Contains(at.want, last.kind) && !slices.Contains(at.want, kind) {
				return last, fmt.Errorf("run %d ended as %s: %s", n, last.kind, last.detail)
			}
			if most := at.asked() + grace + at.pulse.slack(tick); last.took > most && !strings.HasPrefix(last.kind, "limited") {
				return last, fmt.Errorf("run %d took %v, more than %v", n, last.took, most)
			}
			if last.container != "" {
				containers[last.container] = true
			}
			time.Sleep(max(0, every-time.Since(tick)))
		}
		const burst = 4 // and one a second: what a tenant may claim unless its policy says otherwise
		if most := burst + 2 + int(time.Since(began)/time.Second); len(containers) > most {
			return last, fmt.Errorf("it went through %d containers in %v", len(containers), time.Since(began))
		}
		last.took = 0
		last.kind, _, _ = strings.Cut(last.kind, "/quarantine")
		return last, nil
	}
}

// neverRead calls a function whose answer has no end, and reads nothing of it until long after the deadline.
func neverRead(at *attempt) (answer, error) {
	source, err := at.source()
	if err != nil {
		return answer{}, err
	}
	if err := at.service.deploy(at.tenant, "attack", source); err != nil {
		return answer{}, err
	}
	req, err := http.NewRequest("GET", at.service.URL+httpPath(at.attack, ownStream), nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+at.key)
	req.Header.Set("Paddock-Timeout", at.asked().String())
	client := &http.Client{Transport: &http.Transport{ReadBufferSize: 4 << 10, DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	time.Sleep(2 * at.asked()) // its deadline is over, and what it sent is in somebody's memory
	const most = 64 << 20      // what lies in sockets' buffers and in credit
	n, err := io.Copy(io.Discard, io.LimitReader(res.Body, most+1))
	got := answer{status: res.StatusCode, header: res.Header, kind: "ok", container: res.Header.Get("Paddock-Container")}
	if err != nil {
		got.kind, got.detail = "cut", err.Error()
	}
	if n > most {
		return got, fmt.Errorf("more than %d bytes were kept for a client that does not read", most)
	}
	return got, nil
}

// shortError wants the error's text to be bounded, whatever was thrown.
func shortError(at *attempt) []string {
	const most = 64 << 10
	if n := len(at.answer.body); n > most {
		return []string{fmt.Sprintf("the error is %d bytes long", n)}
	}
	if at.answer.kind == "user_error" && !json.Valid(at.answer.body) {
		return []string{fmt.Sprintf("the error is no JSON: %.300q", at.answer.body)}
	}
	return nil
}

// namedBadly gives code names that mean something elsewhere: a line of the log, a path, a header.
func namedBadly(at *attempt) (got answer, err error) {
	source, err := at.source()
	if err != nil {
		return got, err
	}
	for _, name := range []string{"a.js\n{\"level\":\"ERROR\",\"msg\":\"forged\"}", "../../../../etc/passwd", "a\r\nX-Injected: 1\r\n\r\n", "\x1b[2J", "\u202egnp.js", "a\x00b",
		strings.Repeat("a", 1<<20), "/paddock/agent.js", "node:fs", "__proto__", "constructor", "%00%n%s"} {
		body, err := json.Marshal(map[string]any{"source": source, "input": map[string]any{"echo": "x"}, "name": name})
		if err != nil {
			return got, err
		}
		if got, err = at.exchange("POST", "/v1/run", http.Header{"Content-Type": {"application/json"}}, body); err != nil {
			return got, err
		}
		if !slices.Contains(at.want, got.kind) || got.kind == "ok" && string(got.body) != `"x"` || got.header.Get("X-Injected") != "" {
			return got, fmt.Errorf("named %.40q it ended as %s: %.200s", name, got.kind, got.body)
		}
	}
	return got, nil
}
