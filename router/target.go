package router

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"paddock/controller/catalog"
	"paddock/internal/errs"
)

// maxFunctionRef bounds "name@version".
const maxFunctionRef = 256

// parseRef splits "name" or "name@version"; version 0 is the active one.
func parseRef(ref string) (name string, version int64, err error) {
	if ref == "" || len(ref) > maxFunctionRef {
		return "", 0, errs.New(errs.Invalid, "function %.80q: use a name of 1 to %d bytes", ref, maxFunctionRef)
	}
	name, number, versioned := strings.Cut(ref, "@")
	if !plainName(name) {
		return "", 0, errs.New(errs.Invalid, "function %.80q: use letters, digits, '-', '_' and '.', with @VERSION behind if "+
			"you want a certain one", ref)
	}
	if !versioned {
		return name, 0, nil
	}
	version, err = strconv.ParseInt(number, 10, 64)
	if err != nil || version < 1 || strconv.FormatInt(version, 10) != number { // "+3" and "03" are not a second name of 3
		return "", 0, errs.New(errs.Invalid, "function %.80q: the version after @ is a number from 1", ref)
	}
	return name, version, nil
}

// plainName says whether a name has only characters that need no escaping anywhere. Whether there is such a function
// is the catalogue's to say.
func plainName(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return s != "" && s != "." && s != ".."
}

// setFunction points the call at a deployed function.
func (inv *invocation) setFunction(ctx context.Context, ref string, minRevision int64) error {
	name, version, err := parseRef(ref)
	if err != nil {
		return err
	}
	c := inv.router.cfg.Catalogue
	if minRevision > 0 {
		if err := waitRevision(ctx, c, minRevision, inv.req.Deadline); err != nil {
			return err
		}
	}
	f, ok := c.Function(inv.req.Tenant, name, version)
	if !ok {
		return errs.New(errs.NotFound, "tenant %s has no function %q: `paddock functions` or GET /v1/functions lists what "+
			"there is", inv.req.Tenant, ref)
	}
	if err := inv.setRuntime(f.Runtime); err != nil {
		return err
	}
	source, err := c.Source(ctx, inv.req.Tenant, f.Hash)
	if err != nil {
		return err
	}
	inv.req.Function, inv.req.Version, inv.version = name, f.Number, f
	inv.req.Code.Hash, inv.req.Code.Kind, inv.req.Code.Source = f.Hash, f.Kind, source
	inv.req.Code.Name = name + ".js"
	return inv.setSecrets(ctx, name)
}

// setSecrets puts into the call what its function gets.
func (inv *invocation) setSecrets(ctx context.Context, function string) error {
	s, err := inv.router.cfg.Catalogue.Secrets(ctx, inv.req.Tenant, function)
	if err != nil || s == nil {
		return err
	}
	inv.req.Secrets, inv.req.SecretsRev = s.Values, s.Revision
	return nil
}

// setOutside gives the call's container what the policy adds to requests outside of it: the tenant's own values, whatever the
// call may see or has brought. In the sandbox there is no secret of that name.
func (inv *invocation) setOutside(ctx context.Context) error {
	inject := inv.policy().Inject
	if len(inject) == 0 {
		return nil
	}
	s, err := inv.router.cfg.Catalogue.Secrets(ctx, inv.req.Tenant, "")
	if err != nil {
		return err
	}
	inv.req.Outside = map[string]string{}
	for _, in := range inject {
		if secret, ok := s.Lookup(in.Secret); ok {
			inv.req.Outside[in.Secret] = secret.Value
		}
	}
	inv.req.Withhold(inject)
	return nil
}

// setRuntime names the runtime of the call; "" is the default one.
func (inv *invocation) setRuntime(name string) error {
	known := inv.router.cfg.Runtimes
	if name == "" {
		name = known[0]
	}
	for _, k := range known {
		if k == name {
			inv.req.Runtime = name
			return nil
		}
	}
	return errs.New(errs.Invalid, "runtime %.40q is not one of: %s", name, strings.Join(known, ", "))
}

// overlay lays values that came with the call over the tenant's secrets.
func (inv *invocation) overlay(values map[string]string) error {
	o, err := newOverlay(values)
	if err == nil {
		inv.req.Secrets, inv.req.SecretsRev = o.over(inv.req.Secrets, inv.req.SecretsRev)
	}
	return err
}

// overlay is values that came with a call, to be laid over secrets.
type overlay struct {
	values map[string]string
	mark   string // by which a revision with them is told from one without
}

func newOverlay(values map[string]string) (o overlay, err error) {
	if len(values) == 0 {
		return o, nil
	}
	sum, total := sha256.New(), 0
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := catalog.CheckSecretName(name); err != nil {
			return o, err
		}
		value := values[name]
		total += len(name) + len(value)
		fmt.Fprintf(sum, "%d %s %d %s ", len(name), name, len(value), value)
	}
	if total > catalog.MaxSecretsTotal {
		return o, errs.New(errs.Invalid, "the configuration is %d bytes, at most %d are allowed", total, catalog.MaxSecretsTotal)
	}
	return overlay{values, fmt.Sprintf("+%x", sum.Sum(nil)[:16])}, nil
}

// over returns secrets with the values over them, under a revision of their own. secrets is not changed.
func (o overlay) over(secrets map[string]string, revision string) (map[string]string, string) {
	if len(o.values) == 0 {
		return secrets, revision
	}
	all := make(map[string]string, len(secrets)+len(o.values))
	maps.Copy(all, secrets)
	maps.Copy(all, o.values)
	return all, revision + o.mark
}
