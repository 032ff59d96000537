package router

import (
	"bufio"
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"paddock/internal/audit"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// records returns what the audit log holds once everything noted is on disk.
func (g *rig) records() (all []audit.Record) {
	g.t.Helper()
	if err := g.audit.Write(context.Background(), audit.Event{Action: "fence"}); err != nil {
		g.t.Fatal(err)
	}
	_ = g.audit.Tail(context.Background(), audit.Query{Last: 1 << 20}, func(r *audit.Record) error {
		if r.Action != "fence" {
			all = append(all, *r)
		}
		return nil
	})
	return all
}

// brief is a record in one line.
func brief(r audit.Record) string {
	return strings.Join([]string{r.Key, r.Action, r.Tenant, r.Object, r.Decision, r.Result}, "|")
}

func TestChangesAreWrittenDownBeforeAndAfter(t *testing.T) {
	g := newRig(t, nil)
	admin := "Authorization: " + bearerOf("acme-admin")
	a := g.do("POST", "/v1/keys", `{"role":"invoke","note":"private remark","owner":"login"}`, admin)
	if a.status != 200 {
		t.Fatal(a.body)
	}
	g.services.fail = errs.New(errs.Conflict, "it is there")
	g.do("POST", "/v1/tenants", `{"id":"new","policy":{"concurrency":7}}`, "Authorization: "+bearerOf("op"))
	g.services.fail = nil
	got := g.records()
	want := []string{
		"acme-admin|Keys.CreateKey|acme||allow|begun", "acme-admin|Keys.CreateKey|acme||allow|ok",
		"op|Catalog.CreateTenant||new|allow|begun", "op|Catalog.CreateTenant||new|allow|conflict",
	}
	for i := range got {
		if i >= len(want) || brief(got[i]) != want[i] {
			t.Errorf("record %d: %s", i, brief(got[i]))
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d records", len(got))
	}
	if got[0].Call != a.header.Get(hCallID) || got[1].Call != got[0].Call || got[0].Source != "127.0.0.1" || got[0].Role != "tenant-admin" {
		t.Errorf("%+v", got[0])
	}
	if d := got[0].Detail; d["role"] != "invoke" || d["owner"] != "login" || d["note"] != "" {
		t.Errorf("%v", d)
	}
	if d := got[2].Detail["policy"]; !strings.Contains(d, "concurrency") {
		t.Errorf("%v", got[2].Detail)
	}
}

func TestCallsAreNotWrittenDown(t *testing.T) {
	g := newRig(t, nil)
	for range 5 {
		g.do("POST", "/v1/functions/echo/invoke", "1")
	}
	g.do("GET", "/v1/functions", "") // a tenant reads its own
	if got := g.records(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestOperatorsReadingsAreWrittenDown(t *testing.T) {
	g := newRig(t, nil)
	op := "Authorization: " + bearerOf("op")
	g.do("GET", "/v1/tenants/acme", "", op)
	g.do("GET", "/v1/logs?follow=false", "", op, "Paddock-Tenant: acme")
	g.do("GET", "/v1/audit?follow=false", "", op)
	g.do("GET", "/v1/pool", "", op)
	var got []string
	for _, r := range g.records() {
		got = append(got, brief(r))
	}
	want := []string{
		"op|Catalog.GetTenant||acme|allow|ok", "op|Logs.Tail|acme||allow|begun", "op|Logs.Tail|acme||allow|ok",
		"op|Audit.Tail|||allow|begun", "op|Audit.Tail|||allow|ok",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestDenialsAreWrittenDownWithinBounds(t *testing.T) {
	g := newRig(t, nil)
	g.router.auth.guard = mustGuard(t)
	g.do("POST", "/v1/run", "1", "Authorization: Bearer acme-invoke.guess")
	g.do("GET", "/v1/tenants", "")
	g.do("POST", "/v1/keys", `{"tenant":"other","role":"invoke"}`, "Authorization: "+bearerOf("acme-admin"))
	_, err := pb.NewCatalogClient(g.conn).ListTenants(t.Context(), &pb.ListTenantsRequest{})
	if err == nil {
		t.Fatal("no credential was taken")
	}
	got := g.records()
	want := []string{"acme-invoke|POST /v1/run||", "acme-invoke|Catalog.ListTenants|acme|", "acme-admin|Keys.CreateKey|acme|", "|Catalog.ListTenants||"}
	why := []string{"unknown", "role", "tenant", "missing"}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, r := range got {
		if !strings.HasPrefix(brief(r), want[i]) || r.Decision != audit.Deny || r.Detail["why"] != why[i] {
			t.Errorf("record %d: %s %v", i, brief(r), r.Detail)
		}
	}
	const flood = 300
	for range flood {
		g.do("POST", "/v1/run", "1", "Authorization: ")
	}
	if n := len(g.records()); n > 40 {
		t.Errorf("a flood left %d records", n)
	}
	g.router.denials.Close()
	told := int64(0)
	for _, r := range g.records() {
		if told += r.Dropped; r.Action == "POST /v1/run" && r.Key == "" {
			told++
		}
	}
	if told != flood {
		t.Errorf("%d of %d are told of", told, flood)
	}
}

// TestNoSecretReachesTheAuditLog fills every text of every request with a canary: only listed fields are written down, of
// messages that are added as well.
func TestNoSecretReachesTheAuditLog(t *testing.T) {
	var log strings.Builder
	methods := 0
	for i := range rules {
		ru := &rules[i]
		if ru.rpc == "" || ru.call || ru.role == public {
			continue
		}
		service, name, _ := strings.Cut(strings.TrimPrefix(ru.rpc, "/"), "/")
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			t.Fatal(err)
		}
		m := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
		a := &record{}
		a.describe(filled(m.Input(), ""))
		a.describeAnswer(filled(m.Output(), ""))
		methods++
		log.WriteString(a.event.Object)
		for _, v := range a.event.Detail {
			log.WriteString(" " + v)
		}
	}
	if methods < 15 || !strings.Contains(log.String(), "canary-name") {
		t.Fatalf("%d methods, %s", methods, log.String())
	}
	for _, secret := range []string{"canary-source", "canary-secret", "canary-note", "canary-value", "canary-mac", "canary-page_token"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s is in the audit log", secret)
		}
	}
}

// filled is a message whose texts and bytes all say which field they are.
func filled(d protoreflect.MessageDescriptor, in string) proto.Message {
	m := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		canary := "canary-" + string(f.Name())
		switch {
		case f.IsMap():
		case f.IsList() && f.Kind() == protoreflect.StringKind:
			m.Mutable(f).List().Append(protoreflect.ValueOfString(canary))
		case f.IsList():
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(canary))
		case f.Kind() == protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes([]byte(canary)))
		case f.Message() != nil && string(f.Message().FullName()) != in && !strings.HasPrefix(string(f.Message().FullName()), "google."):
			m.Set(f, protoreflect.ValueOfMessage(filled(f.Message(), string(d.FullName())).ProtoReflect()))
		}
	}
	return m
}

// TestWithoutAuditLogNothingIsChanged: what cannot be written down is not done; calls go on.
func TestWithoutAuditLogNothingIsChanged(t *testing.T) {
	g := newRig(t, nil)
	if err := g.audit.Close(); err != nil {
		t.Fatal(err)
	}
	a := g.do("POST", "/v1/keys", `{"role":"invoke"}`, "Authorization: "+bearerOf("acme-admin"))
	if a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.problem.Detail, "audit log") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if g.keys.saw.Load() != nil {
		t.Error("a key was made")
	}
	if a := g.do("POST", "/v1/functions/echo/invoke", "1"); a.status != 200 {
		t.Errorf("a call: %d %s", a.status, a.body)
	}
}

func TestAuditTail(t *testing.T) {
	g := newRig(t, nil)
	for _, e := range []audit.Event{
		{Action: "Keys.CreateKey", Tenant: "acme", Detail: map[string]string{"key": "k"}}, {Action: "Keys.RevokeKey", Tenant: "other"},
		{Action: "Catalog.DeployFunction", Tenant: "acme", Object: "a\nb"},
	} {
		if err := g.audit.Write(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	for query, want := range map[string]int{"tenant=acme": 2, "action=Keys.": 2, "action=Keys.CreateKey": 1, "tenant=acme&action=Keys.": 1,
		"lines=1&action=Keys.": 1, "action=Key": 0} {
		a := g.do("GET", "/v1/audit?follow=false&"+query, "", "Authorization: "+bearerOf("op"))
		if n := strings.Count(a.body, "data: "); a.status != 200 || n != want {
			t.Errorf("%s: %d, %d events, want %d: %s", query, a.status, n, want, a.body)
		}
	}
	if a := g.do("GET", "/v1/audit?colour=red", "", "Authorization: "+bearerOf("op")); a.status != 400 {
		t.Errorf("%d", a.status)
	}
	ctx, cancel := context.WithTimeout(ctxAs(t.Context(), "op"), 20*time.Second)
	defer cancel()
	stream, err := pb.NewAuditClient(g.conn).Tail(ctx, &pb.TailAuditRequest{Follow: true, Lines: 1, Tenant: "acme", Action: "Catalog."})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || r.GetAction() != "Catalog.DeployFunction" || r.GetObject() != `a\nb` || len(r.GetHash()) != 64 {
		t.Fatalf("%v %v", r, err)
	}
	if err := g.audit.Write(t.Context(), audit.Event{Action: "Catalog.later", Tenant: "acme"}); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || r.GetAction() != "Catalog.later" {
		t.Errorf("%v %v", r, err)
	}
}

// TestStreamsEndWithTheirKey: what lasts does not outlive the credential that it was opened with by more than 5 s.
func TestStreamsEndWithTheirKey(t *testing.T) {
	g := newRig(t, nil)
	g.source.tail = oneLine("hello")
	g.cat.addKey("brief", "acme", identity.RoleInvoke, time.Time{})
	stream, err := pb.NewLogsClient(g.conn).Tail(ctxAs(t.Context(), "brief"), &pb.TailRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", g.url+"/v1/logs", nil)
	req.Header.Set("Authorization", bearerOf("brief"))
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	events := bufio.NewReader(res.Body)
	if _, err := events.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	g.cat.mu.Lock()
	delete(g.cat.keys, "brief")
	g.cat.mu.Unlock()
	began := time.Now()
	if _, err := stream.Recv(); !strings.Contains(err.Error(), "Unauthenticated") {
		t.Errorf("gRPC: %v", err)
	}
	for err == nil {
		_, err = events.ReadString('\n')
	}
	if took := time.Since(began); took > testenv.Patience(20*time.Second) {
		t.Errorf("they ended after %v", took)
	}
}

func TestAuditLogIsWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	log, err := audit.Open(audit.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	g := newRig(t, func(c *Config) { c.Audit = log })
	g.router.auth.guard = mustGuard(t)
	for i := range rules {
		if ru := &rules[i]; ru.http != "" {
			for _, w := range everybody(g) {
				method, path := sampleRequest(ru.http)
				g.do(method, path, "{}", "Authorization: "+w.authorization, "Paddock-Tenant: "+w.tenant)
			}
		}
	}
	_ = log.Close()
	if r, err := audit.Verify(dir, audit.Expect{}); err != nil || len(r.Problems) > 0 || r.Lines < 50 {
		t.Errorf("%+v %v", r, err)
	}
}
