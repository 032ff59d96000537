package catalog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/sizedcache"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

func (w *world) secret(id, name, function, value string) *SecretView {
	w.t.Helper()
	v, err := w.service.SetSecret(w.t.Context(), tenant.ID(id), NewSecret{Name: name, Function: function, Value: value, Author: "k1"})
	must(w.t, err)
	return v
}

// gets returns what a function gets, as text, and its revision.
func (w *world) gets(id, function string) (values, revision string) {
	w.t.Helper()
	s, err := w.view.Secrets(w.t.Context(), tenant.ID(id), function)
	must(w.t, err)
	if s == nil {
		return "none", ""
	}
	return fmt.Sprint(s.Values), s.Revision
}

func TestSecretLife(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.tenant("other", nil)
	if got, _ := w.gets("acme", "f"); got != "none" {
		t.Errorf("at first: %s", got)
	}
	one := w.secret("acme", "KEY", "", "all's")
	own := w.secret("acme", "KEY", "f", "f's own")
	w.secret("acme", "TOKEN", "g", "g's")
	var revisions []string
	want := func(id, function, values string) {
		t.Helper()
		got, revision := w.gets(id, function)
		if got != values {
			t.Errorf("%s/%s gets %s, want %s", id, function, got, values)
		}
		revisions = append(revisions, revision)
	}
	want("acme", "f", "map[KEY:f's own]")
	want("acme", "g", "map[KEY:all's TOKEN:g's]")
	want("acme", "", "map[KEY:all's]")
	want("other", "f", "none")
	if revisions[0] == revisions[1] || revisions[1] == revisions[2] || revisions[0] == "" {
		t.Errorf("different sets have the same revision: %v", revisions)
	}
	s, err := w.view.Secrets(t.Context(), "acme", "f")
	must(t, err)
	if found, ok := s.Lookup("KEY"); !ok || found != (Secret{"f's own", own.Revision}) || own.Revision <= one.Revision {
		t.Errorf("%+v of revisions %d, %d", found, one.Revision, own.Revision)
	}
	if _, ok := s.Lookup("TOKEN"); ok {
		t.Error("f finds g's secret")
	}
	again, err := w.view.Secrets(t.Context(), "acme", "f")
	if err != nil || again != s {
		t.Errorf("decrypted twice: %v", err)
	}
	// The same value again is a change; another function's secret is none for f.
	w.secret("acme", "TOKEN", "g", "g's second")
	want("acme", "f", "map[KEY:f's own]")
	w.secret("acme", "KEY", "f", "f's own")
	want("acme", "f", "map[KEY:f's own]")
	if revisions[4] != revisions[0] || revisions[5] == revisions[0] {
		t.Errorf("revisions of f: %s, %s, %s", revisions[0], revisions[4], revisions[5])
	}
	list := w.view.ListSecrets("acme")
	if len(list) != 3 || list[0].Name != "KEY" || list[0].Function != "" || list[1].Function != "f" || list[1].Author != "k1" ||
		list[1].Updated.IsZero() {
		t.Errorf("%+v", list)
	}
	_, err = w.service.DeleteSecret(t.Context(), "acme", "KEY", "f")
	must(t, err)
	want("acme", "f", "map[KEY:all's]")
	_, err = w.service.DeleteSecret(t.Context(), "acme", "KEY", "f")
	wantKind(t, err, errs.NotFound, "KEY@f")
	// Removed and made again, it is not the one that it was.
	w.secret("acme", "KEY", "f", "f's own")
	want("acme", "f", "map[KEY:f's own]")
	if last := revisions[len(revisions)-1]; last == revisions[0] || last == revisions[5] {
		t.Error("a revision came back")
	}
	for _, ref := range []string{"", "f"} {
		_, err = w.service.DeleteSecret(t.Context(), "acme", "KEY", ref)
		must(t, err)
	}
	_, err = w.service.DeleteSecret(t.Context(), "acme", "TOKEN", "g")
	must(t, err)
	want("acme", "g", "none")
	u := &pb.UsageRecord{}
	_, err = w.service.get(t.Context(), store.Usage("acme"), u)
	must(t, err)
	if u.GetSecrets() != 0 || u.GetSecretBytes() != 0 {
		t.Errorf("counted although gone: %v", u)
	}
}

// A function takes its own secrets along: who makes another of that name later does not get them.
func TestSecretsGoWithTheirFunction(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	for _, name := range []string{"f", "of"} {
		_, err := w.service.DeployFunction(t.Context(), "acme", Deployment{Name: name, Source: []byte("1")})
		must(t, err)
	}
	w.secret("acme", "KEY", "", "all's")
	w.secret("acme", "KEY", "f", "f's own")
	w.secret("acme", "OTHER", "f", "f's too")
	w.secret("acme", "KEY", "of", "another's")
	_, err := w.service.DeleteFunction(t.Context(), "acme", "f")
	must(t, err)
	for function, want := range map[string]string{"f": "map[KEY:all's]", "of": "map[KEY:another's]"} {
		if got, _ := w.gets("acme", function); got != want {
			t.Errorf("%s gets %s, want %s", function, got, want)
		}
	}
	u := &pb.UsageRecord{}
	_, err = w.service.get(t.Context(), store.Usage("acme"), u)
	must(t, err)
	if u.GetSecrets() != 2 || u.GetFunctions() != 1 {
		t.Errorf("counted: %v", u)
	}
	for i := range MaxSecrets - 2 {
		w.secret("acme", fmt.Sprint("S", i), "of", "x")
	}
	for i := range 40 {
		_, err := w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "of", Source: fmt.Append(nil, i)})
		must(t, err)
	}
	_, err = w.service.DeleteFunction(t.Context(), "acme", "of")
	wantKind(t, err, errs.Conflict, "secrets rm")
}

func TestSecretLimits(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	set := func(n NewSecret) error {
		_, err := w.service.SetSecret(t.Context(), "acme", n)
		return err
	}
	for name, says := range map[string]string{
		"": "1 to 128", "9lives": "beginning with a letter", "a b": "1 to 128", "a@b": "1 to 128", "a|b": "1 to 128", "a/b": "1 to 128",
		strings.Repeat("x", 129): "1 to 128", "__proto__": "1 to 128", "ü": "1 to 128",
	} {
		wantKind(t, set(NewSecret{Name: name, Value: "v"}), errs.Invalid, says)
	}
	wantKind(t, set(NewSecret{Name: "S", Function: "a/b", Value: "v"}), errs.Invalid, "function name")
	wantKind(t, set(NewSecret{Name: "S"}), errs.Invalid, "S", "empty", "secrets rm")
	wantKind(t, set(NewSecret{Name: "S", Value: "\xff"}), errs.Invalid, "UTF-8")
	over := strings.Repeat("v", MaxSecretBytes+1)
	err := set(NewSecret{Name: "S", Value: over})
	wantKind(t, err, errs.Invalid, "65537", "65536")
	if strings.Contains(err.Error(), "vvv") {
		t.Error("the error repeats the value")
	}
	must(t, set(NewSecret{Name: "S", Value: over[1:]}))
	must(t, set(NewSecret{Name: "S2", Value: over[1:]}))
	must(t, set(NewSecret{Name: "S3", Value: over[1:]}))
	wantKind(t, set(NewSecret{Name: "S4", Value: over[1:]}), errs.Limited, "262144")
	must(t, set(NewSecret{Name: "S3", Value: over[1:]})) // in place of itself
	wantKind(t, set(NewSecret{Name: "S3", Value: strings.Repeat("\x01", MaxSecretBytes)}), errs.Limited, "262144")
	_, err = w.service.SetSecret(t.Context(), "nobody", NewSecret{Name: "S", Value: "v"})
	wantKind(t, err, errs.NotFound, "nobody")

	w.tenant("many", nil)
	var wg sync.WaitGroup
	var made, refused atomic.Int64
	for i := range MaxSecrets + 5 {
		wg.Go(func() {
			_, err := w.service.SetSecret(t.Context(), "many", NewSecret{Name: fmt.Sprintf("S%d", i), Value: "v"})
			if err == nil {
				made.Add(1)
			} else if wantKind(t, err, errs.Limited, "100"); errs.Is(err, errs.Limited) {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if made.Load() != MaxSecrets || refused.Load() != 5 || len(w.view.ListSecrets("many")) != MaxSecrets {
		t.Errorf("%d made, %d refused, %d there", made.Load(), refused.Load(), len(w.view.ListSecrets("many")))
	}
}

// TestSwappedSecrets: a ciphertext opens only at its own place, whoever moves it.
func TestSwappedSecrets(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.tenant("evil", nil)
	w.secret("acme", "A", "", "value of a")
	w.secret("acme", "B", "", "value of b")
	w.secret("acme", "A", "f", "f's value of a")
	w.secret("evil", "A", "", "evil's value")
	record := func(key string) *pb.SecretRecord {
		rec := &pb.SecretRecord{}
		_, err := w.service.get(t.Context(), key, rec)
		must(t, err)
		return rec
	}
	places := map[string]string{
		"same tenant": store.Secret("acme", "B"), "function's": store.Secret("acme", "A@f"), "another tenant's": store.Secret("evil", "A"),
	}
	mine := store.Secret("acme", "A")
	good := record(mine)
	for what, from := range places {
		bad := proto.Clone(good).(*pb.SecretRecord)
		bad.Sealed = record(from).GetSealed()
		value, err := proto.Marshal(bad)
		must(t, err)
		w.sees(w.raw(mine, value))
		_, err = w.view.Secrets(t.Context(), "acme", "")
		wantKind(t, err, errs.Internal, "A")
		if err != nil && strings.Contains(errs.From(err).Message, "value") {
			t.Errorf("%s: the error tells a value: %v", what, err)
		}
	}
	// A record under another's key is not taken in: what was there stays, with an alarm.
	value, err := proto.Marshal(good)
	must(t, err)
	w.sees(w.raw(mine, value))
	before := w.view.Stats().Unreadable
	w.sees(w.raw(store.Secret("acme", "B"), value))
	if got, _ := w.gets("acme", ""); got != "map[A:value of a B:value of b]" || w.view.Stats().Unreadable != before+1 {
		t.Errorf("%s, %d unreadable", got, w.view.Stats().Unreadable)
	}
}

// snapshot copies the store and the blobs, as a backup does.
func (w *world) snapshot() (kvs []store.KV, blobs string) {
	w.t.Helper()
	kvs, _, err := w.store.List(w.t.Context(), store.Root)
	must(w.t, err)
	blobs = w.t.TempDir()
	must(w.t, os.CopyFS(blobs, os.DirFS(filepath.Join(w.dir, "blobs"))))
	return kvs, blobs
}

// restored opens a snapshot with the key-encryption key that there is now.
func (w *world) restored(kvs []store.KV, blobs string) *world {
	w.t.Helper()
	s := mem(w.t)
	for _, kv := range kvs {
		_, err := s.Commit(w.t.Context(), store.Txn{Puts: []store.Put{{Key: kv.Key, Value: kv.Value}}})
		must(w.t, err)
	}
	dir := w.t.TempDir()
	must(w.t, os.CopyFS(filepath.Join(dir, "blobs"), os.DirFS(blobs)))
	kek, err := os.ReadFile(filepath.Join(w.dir, "kek"))
	must(w.t, err)
	must(w.t, os.WriteFile(filepath.Join(dir, "kek"), kek, 0o600))
	return openWorld(w.t, s, dir)
}

// TestShreddedSecrets: ciphertexts of a deleted tenant, put back from a snapshot, open for nobody; once the key-encryption
// key was rotated, not even with the data key that the snapshot holds.
func TestShreddedSecrets(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.tenant("other", nil)
	w.secret("acme", "KEY", "", "shred me")
	w.secret("other", "KEY", "", "stays")
	d := w.deploy("acme", "f", "code to shred")
	kvs, blobs := w.snapshot()
	_, err := w.service.DeleteTenant(t.Context(), "acme")
	must(t, err)
	left, _, err := w.store.List(t.Context(), store.Root)
	must(t, err)
	for _, kv := range left {
		if strings.Contains(kv.Key, "/acme") {
			t.Errorf("left behind: %s", kv.Key)
		}
	}
	// A new tenant of that name, with the old ciphertexts.
	w.tenant("acme", nil)
	for _, kv := range kvs {
		if kv.Key == store.Secret("acme", "KEY") {
			w.sees(w.raw(kv.Key, kv.Value))
		}
	}
	_, err = w.view.Secrets(t.Context(), "acme", "")
	wantKind(t, err, errs.Internal, "KEY")
	must(t, os.CopyFS(filepath.Join(w.dir, "blobs", "acme"), os.DirFS(filepath.Join(blobs, "acme"))))
	_, err = openWorld(t, w.store, w.dir).view.Source(t.Context(), "acme", d.Version.Hash)
	wantKind(t, err, errs.Internal)

	w.rotateKEK(2)
	w.dropsOldKEK()
	old := w.restored(kvs, blobs)
	_, err = old.view.Secrets(t.Context(), "acme", "")
	wantKind(t, err, errs.Internal)
	_, err = old.view.Source(t.Context(), "acme", d.Version.Hash)
	wantKind(t, err, errs.Internal)
	if got, _ := openWorld(t, w.store, w.dir).gets("other", ""); got != "map[KEY:stays]" {
		t.Errorf("the other tenant's: %s", got)
	}
}

// BenchmarkSecrets is what finding a call's secrets costs: nothing to speak of where there are none.
func BenchmarkSecrets(b *testing.B) {
	v := &View{secrets: newTable[tenant.ID, *secretSet](), opened: sizedcache.New[functionKey, openedSet](secretCacheBytes)}
	set := &secretSet{byRef: map[string]*SecretView{}}
	e := v.secrets.edit()
	e.set("some", set)
	e.publish()
	v.opened.Add(functionKey{"some", "f"}, openedSet{set, &Secrets{Revision: "r"}}, 100)
	for _, t := range []tenant.ID{"none", "some"} {
		b.Run(string(t), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if s, err := v.Secrets(b.Context(), t, "f"); err != nil || (s == nil) != (t == "none") {
					b.Fatal(s, err)
				}
			}
		})
	}
}
