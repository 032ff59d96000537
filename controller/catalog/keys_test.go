package catalog

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
)

func TestKeyLife(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	k, token, rev, err := w.service.CreateKey(t.Context(), NewKey{
		Tenant: "acme", Role: identity.RoleDeploy, Note: "ci", TTL: time.Hour,
	})
	must(t, err)
	v, err := w.keyring.VerifyKey(token)
	must(t, err)
	if v.ID != k.ID || v.Tenant != "acme" || v.Role != identity.RoleDeploy || rev == 0 || v.Expires.IsZero() {
		t.Errorf("%+v", v)
	}
	if !strings.HasPrefix(token, "pdk_"+k.ID+".") {
		t.Errorf("a token of the form %.24s…", token)
	}
	again, _ := w.keyring.Key(k.ID)
	if again != v {
		t.Error("an unchanged key has another pointer")
	}
	if list := w.service.Keys("acme", false); len(list) != 1 || list[0].Note != "ci" {
		t.Errorf("%+v", list)
	}
	_, err = w.service.RevokeKey(t.Context(), "other", k.ID)
	wantKind(t, err, errs.NotFound)
	_, err = w.service.RevokeKey(t.Context(), "acme", k.ID)
	must(t, err)
	_, err = w.keyring.VerifyKey(token)
	wantKind(t, err, errs.Unauthenticated)
	_, err = w.service.RevokeKey(t.Context(), "acme", k.ID)
	wantKind(t, err, errs.NotFound)
}

// TestBadTokens: every way to be wrong has the same answer.
func TestBadTokens(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	_, token, _, err := w.service.CreateKey(t.Context(), NewKey{Tenant: "acme", Role: identity.RoleInvoke})
	must(t, err)
	_, second, _, err := w.service.CreateKey(t.Context(), NewKey{Tenant: "acme", Role: identity.RoleInvoke})
	must(t, err)
	id, _, _ := w.keyring.Parse(token)
	_, secret, _ := w.keyring.Parse(second)
	texts := map[string]bool{}
	for name, bad := range map[string]string{
		"empty": "", "another's secret": formatToken(id, secret), "cut": token[:len(token)-1], "longer": token + "A",
		"other prefix": "x" + token, "no dot": strings.Replace(token, ".", "", 1),
		"unknown id":  formatToken("0123456789abcdef", secret),
		"zero secret": formatToken(id, base64.RawURLEncoding.EncodeToString(make([]byte, secretBytes))),
		"path":        "pdk_../../../../../x." + secret, "huge": strings.Repeat("a", 1<<20),
	} {
		_, err := w.keyring.VerifyKey(bad)
		wantKind(t, err, errs.Unauthenticated)
		texts[errs.From(err).Message] = true
		if _, err := w.keyring.VerifyKey(token); err != nil {
			t.Fatalf("%s: the good key: %v", name, err)
		}
	}
	if len(texts) != 1 {
		t.Errorf("answers tell apart what is wrong: %v", texts)
	}
}

func TestKeyExpires(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	_, token, _, err := w.service.CreateKey(t.Context(), NewKey{
		Tenant: "acme", Role: identity.RoleInvoke, TTL: time.Nanosecond,
	})
	must(t, err)
	_, err = w.keyring.VerifyKey(token)
	wantKind(t, err, errs.Unauthenticated)
}

func TestBadKeys(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	for _, n := range []NewKey{
		{Tenant: "acme", Role: "root"},
		{Tenant: "acme", Role: identity.RoleOperator},
		{Role: identity.RoleInvoke},
		{Tenant: "acme", Role: identity.RoleInvoke, TTL: -1},
		{Tenant: "acme", Role: identity.RoleInvoke, TTL: 100 * 365 * 24 * time.Hour},
		{Tenant: "acme", Role: identity.RoleInvoke, Note: strings.Repeat("n", 257)},
	} {
		_, _, _, err := w.service.CreateKey(t.Context(), n)
		wantKind(t, err, errs.Invalid)
	}
	_, _, _, err := w.service.CreateKey(t.Context(), NewKey{Tenant: "nobody", Role: identity.RoleInvoke})
	wantKind(t, err, errs.NotFound, "nobody")
}

func TestKeyLimit(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	var all sync.WaitGroup
	var made, limited atomic.Int32
	for i := range MaxKeys + 20 {
		all.Go(func() {
			n := NewKey{Tenant: "acme", Role: identity.RoleInvoke, Owner: fmt.Sprint("service ", i)}
			_, _, _, err := w.service.CreateKey(t.Context(), n)
			switch errs.KindOf(err) {
			case "":
				made.Add(1)
			case errs.Limited:
				limited.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != MaxKeys || limited.Load() != 20 {
		t.Errorf("%d made, %d refused", made.Load(), limited.Load())
	}
}

// TestTwoLiveKeysPerOwner: one in use and one to replace it, also when both are made at once; a third is refused with what
// helps to choose.
func TestTwoLiveKeysPerOwner(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.tenant("other", nil)
	login := NewKey{Tenant: "acme", Role: identity.RoleInvoke, Owner: "login"}
	var all sync.WaitGroup
	var mu sync.Mutex
	var made []*KeyInfo
	for range 10 {
		all.Go(func() {
			k, _, _, err := w.service.CreateKey(t.Context(), login)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made = append(made, k)
			} else if !errs.Is(err, errs.Limited) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(made) != MaxLiveKeys {
		t.Fatalf("%d keys were made", len(made))
	}
	v, _ := w.view.Key(made[0].ID)
	v.Use(time.Now())
	_, _, _, err := w.service.CreateKey(t.Context(), login)
	wantKind(t, err, errs.Limited, `"login"`, made[0].ID, made[1].ID, "never used", "last used", "revoke one")
	if text := errs.From(err).Message; strings.Index(text, made[1].ID) > strings.Index(text, made[0].ID) {
		t.Errorf("the key that is in use comes first: %s", text)
	}
	for _, n := range []NewKey{
		{Tenant: "acme", Role: identity.RoleInvoke, Owner: "batch"}, {Tenant: "acme", Role: identity.RoleInvoke},
		{Tenant: "acme", Role: identity.RoleDeploy}, {Tenant: "other", Role: identity.RoleInvoke, Owner: "login"},
	} {
		if _, _, _, err := w.service.CreateKey(t.Context(), n); err != nil {
			t.Errorf("%+v: %v", n, err)
		}
	}
	_, err = w.service.RevokeKey(t.Context(), "acme", made[1].ID)
	must(t, err)
	short := login
	short.TTL = time.Nanosecond // does not count once it is over
	for range 3 {
		_, _, _, err = w.service.CreateKey(t.Context(), short)
		must(t, err)
	}
	_, _, _, err = w.service.CreateKey(t.Context(), login)
	must(t, err)
}

// TestKeyUse: the last use is exact where it was seen and reaches others within the hour, for one write.
func TestKeyUse(t *testing.T) {
	s := mem(t)
	here := newWorld(t, s)
	there := openWorld(t, s, here.dir)
	here.tenant("acme", nil)
	scopes, _ := identity.ParseScopes([]string{"call"})
	k, token, _, err := here.service.CreateKey(t.Context(), NewKey{Tenant: "acme", Role: identity.RoleInvoke, Note: "n", Scopes: scopes})
	must(t, err)
	v, _ := here.view.Key(k.ID)
	now := time.Now()
	v.Use(now)
	if got := here.service.Keys("acme", false)[0].Used; got.Unix() != now.Unix() {
		t.Errorf("used %v, shown %v", now, got)
	}
	must(t, here.service.SaveKeyUse(t.Context()))
	saved := here.view.Revision()
	there.sees(saved)
	if got := there.service.Keys("acme", false)[0]; got.Used.Unix() != now.Unix() || got.Note != "n" || got.Scopes != "call" {
		t.Errorf("elsewhere: %+v", got)
	}
	v, _ = here.view.Key(k.ID)
	v.Use(now.Add(usePrecision - time.Minute))
	must(t, here.service.SaveKeyUse(t.Context()))
	if rev := here.view.Revision(); rev != saved {
		t.Errorf("a use within the hour was written: revision %d after %d", rev, saved)
	}
	v.Use(now.Add(usePrecision + time.Minute))
	must(t, here.service.SaveKeyUse(t.Context()))
	if got := here.service.Keys("acme", false)[0].Used; got.Unix() != now.Add(usePrecision+time.Minute).Unix() {
		t.Errorf("shown %v", got)
	}
	if _, err := here.keyring.VerifyKey(token); err != nil {
		t.Error(err)
	}
	_, err = here.service.RevokeKey(t.Context(), "acme", k.ID)
	must(t, err)
	must(t, here.service.saveUse(t.Context(), k.ID, now.Add(9*time.Hour)))
	if len(here.service.Keys("acme", false)) != 0 {
		t.Error("noting its use brought a revoked key back")
	}
}

// TestStaleFailsClosed: a key that may have been revoked long ago is not taken.
func TestStaleFailsClosed(t *testing.T) {
	s := mem(t)
	w := newWorld(t, s, func(v *ViewOptions, _ *Options) { v.AuthStaleMax = 2 * time.Second })
	w.tenant("acme", nil)
	_, token, _, err := w.service.CreateKey(t.Context(), NewKey{Tenant: "acme", Role: identity.RoleInvoke})
	must(t, err)
	s.SetAway(true)
	if _, err := w.keyring.VerifyKey(token); err != nil {
		t.Fatalf("while the view is young: %v", err)
	}
	for !w.keyring.Stale() {
		time.Sleep(10 * time.Millisecond) // the age is the clock's
	}
	_, err = w.keyring.VerifyKey(token)
	wantKind(t, err, errs.Unauthenticated)
}

// TestRevokedElsewhere: what another process revokes does not work here once the watch has brought it, soon.
func TestRevokedElsewhere(t *testing.T) {
	s, _ := etcd(t)
	here := newWorld(t, s)
	there := openWorld(t, s, here.dir)
	here.tenant("acme", nil)
	k, token, rev, err := here.service.CreateKey(t.Context(), NewKey{Tenant: "acme", Role: identity.RoleInvoke})
	must(t, err)
	there.sees(rev)
	if _, err := there.keyring.VerifyKey(token); err != nil {
		t.Fatal(err)
	}
	sub := there.view.Subscribe()
	defer sub.Close()
	began := time.Now()
	rev, err = here.service.RevokeKey(t.Context(), "acme", k.ID)
	must(t, err)
	there.sees(rev)
	took := time.Since(began)
	_, err = there.keyring.VerifyKey(token)
	wantKind(t, err, errs.Unauthenticated)
	t.Logf("revoked there %v after the call here began", took)
	if took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	want := Change{Kind: KeyRemoved, Tenant: "acme", Name: k.ID}
	for told := false; !told; { // a subscriber may also still be told that the key was made: notices follow what is visible
		select {
		case <-sub.C():
			told = slices.Contains(sub.Take(), want)
		case <-time.After(20 * time.Second):
			t.Fatalf("no notice of %+v", want)
		}
	}
}

func TestOperatorKey(t *testing.T) {
	s := mem(t)
	w := newWorld(t, s)
	path := filepath.Join(w.dir, "operator.key")
	read := func() string {
		t.Helper()
		b, err := os.ReadFile(path)
		must(t, err)
		return strings.TrimSpace(string(b))
	}
	must(t, w.service.EnsureOperatorKey(t.Context(), path))
	first := read()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	v, err := w.keyring.VerifyKey(first)
	if err != nil || v.Role != identity.RoleOperator || v.Tenant != "" {
		t.Fatalf("%+v, %v", v, err)
	}
	must(t, w.service.EnsureOperatorKey(t.Context(), path))
	if read() != first || len(w.service.Keys("", false)) != 1 {
		t.Error("the second start made another key")
	}
	// The last one cannot be revoked, one of two can.
	_, err = w.service.RevokeKey(t.Context(), "", v.ID)
	wantKind(t, err, errs.Conflict, "last operator")
	_, second, _, err := w.service.CreateKey(t.Context(), NewKey{Role: identity.RoleOperator})
	must(t, err)
	_, err = w.service.RevokeKey(t.Context(), "", v.ID)
	must(t, err)
	must(t, w.service.EnsureOperatorKey(t.Context(), path))
	_, err = w.keyring.VerifyKey(first)
	wantKind(t, err, errs.Unauthenticated)
	if _, err := w.keyring.VerifyKey(second); err != nil {
		t.Error(err)
	}
	// A start that was broken off between file and store, or a store that was lost: the file's key works.
	fresh := openWorld(t, mem(t), w.dir)
	must(t, fresh.service.EnsureOperatorKey(t.Context(), path))
	if _, err := fresh.keyring.VerifyKey(first); err != nil {
		t.Error(err)
	}
	for _, world := range []*world{w, fresh} {
		_, secret, _ := world.keyring.Parse(first)
		if strings.Contains(world.log.String(), secret) {
			t.Error("the key was logged")
		}
	}
	must(t, os.Chmod(path, 0o644))
	if err := fresh.service.EnsureOperatorKey(t.Context(), path); err == nil || !strings.Contains(err.Error(), "0644") {
		t.Errorf("a key that others can read: %v", err)
	}
}

// TestLastOperatorRace: of two revocations in two processes one key stays.
func TestLastOperatorRace(t *testing.T) {
	s := mem(t)
	a := newWorld(t, s)
	b := openWorld(t, s, a.dir)
	for range 20 {
		must(t, a.service.EnsureOperatorKey(t.Context(), filepath.Join(t.TempDir(), "k")))
		for len(a.service.Keys("", false)) < 2 {
			_, _, _, err := a.service.CreateKey(t.Context(), NewKey{Role: identity.RoleOperator})
			must(t, err)
		}
		var all sync.WaitGroup
		ids := a.service.Keys("", false)
		for i, k := range ids {
			svc := []*Service{a.service, b.service}[i%2]
			all.Go(func() { _, _ = svc.RevokeKey(t.Context(), "", k.ID) })
		}
		all.Wait()
		kvs, rev, err := s.List(t.Context(), store.KeysPrefix)
		if err != nil || len(kvs) != 1 {
			t.Fatalf("%d keys left, %v", len(kvs), err)
		}
		a.sees(rev)
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	got := make([]string, 20)
	for i := range got {
		all.Go(func() {
			p, err := LoadPepper(filepath.Join(dir, "pepper"))
			if err != nil {
				t.Error(err)
			}
			got[i] = string(p)
		})
	}
	all.Wait()
	for _, p := range got {
		if p != got[0] || len(p) != pepperBytes {
			t.Fatal("starts at once made different peppers")
		}
	}
	must(t, os.Chmod(filepath.Join(dir, "pepper"), 0o640))
	if _, err := LoadPepper(filepath.Join(dir, "pepper")); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("a pepper that others can read: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".secret-*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	must(t, os.WriteFile(filepath.Join(dir, "kek"), []byte("garbage"), 0o600))
	if _, err := LoadKEK(filepath.Join(dir, "kek")); err == nil {
		t.Error("a broken key-encryption key passed")
	}
}

func BenchmarkVerify(b *testing.B) {
	p := Pepper(make([]byte, pepperBytes))
	id, secret := newToken()
	v := &KeyView{ID: id, MAC: p.mac(id, secret), Tenant: tenant.ID("acme")}
	k := &Keyring{pepper: p}
	b.ReportAllocs()
	for b.Loop() {
		if !k.Verify(v, secret) {
			b.Fatal()
		}
	}
}
