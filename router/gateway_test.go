package router

import (
	"encoding/json"
	"strings"
	"testing"

	"paddock/internal/errs"
)

func TestManagementByREST(t *testing.T) {
	g := newRig(t, nil)
	op := "Authorization: " + bearerOf("op")
	a := g.do("POST", "/v1/tenants", `{"id":"new","policy":{"concurrency":3}}`, op)
	if a.status != 200 || !strings.Contains(a.body, `"new"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a = g.do("POST", "/v1/tenants", `{"id":"new","policy":{"concurency":3}}`, op); a.status != 400 || a.problem.Kind != "invalid" {
		t.Errorf("unknown field: %d %s", a.status, a.body)
	}
	if a = g.do("GET", "/v1/pool", "", op); a.status != 200 || !json.Valid([]byte(a.body)) {
		t.Errorf("%d %s", a.status, a.body)
	}
	a = g.do("PUT", "/v1/functions/rule?kind=rule", "function (u, c, cb) {}", "Content-Type: application/javascript",
		"Authorization: "+bearerOf("acme-deploy"))
	if a.status != 200 || string(g.services.asked.Load().GetSource()) != "function (u, c, cb) {}" ||
		g.services.asked.Load().GetKind() != "rule" || g.services.saw.Load().Tenant != "acme" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a = g.do("PUT", "/v1/functions/rule", `{"source":"MQ=="}`, op, "Paddock-Tenant: other", "Content-Type: application/json"); a.status != 200 ||
		g.services.saw.Load().Tenant != "other" || string(g.services.asked.Load().GetSource()) != "1" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, c := range []struct{ method, path, body, says string }{
		{"POST", "/v1/tenants", `{"id":5}`, "invalid value for string field id: 5; GET /openapi.json"},
		{"POST", "/v1/tenants", `{`, "cannot be read: it ends too early"},
		{"PUT", "/v1/functions/rule", `{"source":"function () {}"}`, "Content-Type: application/javascript"},
		{"PUT", "/v1/functions/rule", `function () {}`, "Content-Type: application/javascript"},
	} {
		if a = g.do(c.method, c.path, c.body, op, "Paddock-Tenant: acme"); a.status != 400 || !strings.Contains(a.problem.Detail, c.says) ||
			strings.Contains(a.problem.Detail, "proto") {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{errs.New(errs.Conflict, "tenant new exists"), 409, "tenant new exists"},
		{errBoom, 500, "operator's log"},
	} {
		g.services.fail = c.err
		if a = g.do("GET", "/v1/tenants/acme", "", op); a.status != c.status || !strings.Contains(a.problem.Detail, c.says) {
			t.Errorf("%v: %d %s", c.err, a.status, a.body)
		}
	}
	if a = g.do("POST", "/v1/tenants", strings.Repeat("x", managementBytes+1), op); a.status != 413 {
		t.Errorf("large: %d", a.status)
	}
	a = g.do("POST", "/v1/keys", `{"role":"invoke"}`, op, "X-HTTP-Method-Override: DELETE")
	if a.status != 200 || g.keys.saw.Load() == nil {
		t.Errorf("override: %d %s", a.status, a.body)
	}
}

func TestPublicPages(t *testing.T) {
	g := newRig(t, nil)
	for path, says := range map[string]string{
		"/healthz": "ok", "/readyz": "ready", "/metrics": "paddock_calls_in_flight", "/openapi.json": "swagger",
	} {
		if a := g.do("GET", path, "", "Authorization: "); a.status != 200 || !strings.Contains(a.body, says) {
			t.Errorf("%s: %d %.80s", path, a.status, a.body)
		}
	}
	g.router.SetReady(false)
	if a := g.do("GET", "/readyz", ""); a.status != 503 {
		t.Errorf("not ready: %d", a.status)
	}
}
