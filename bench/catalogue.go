package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"paddock/controller/catalog"
	"paddock/controller/etcdstore"
	"paddock/internal/tenant"
)

// The catalogue section: does a service that knows ten thousand functions answer as one does that knows ten?
const (
	catalogueOfEach = 10 // functions of a tenant
	catalogueProbe  = "probe"
	catalogueBar    = 1.5 // of the time that it takes where there are ten functions
	catalogueDeploy = 20  // deployments in a round
	catalogueLists  = 40
)

// catalogueSizes are the points of the curve, in functions.
var catalogueSizes = []int{10, 100, 1_000, 10_000}

// catalogued is a service that knows so many functions, and how long it took in each round.
type catalogued struct {
	*service
	size     int
	invoke   target
	list     target
	tenants  target
	deployed int

	took map[string][]float64 // ms, by what was done
}

// catalogue runs a service for each size side by side and measures them in turn.
func (b *bench) catalogue(ctx context.Context) error {
	var all []*catalogued
	for _, size := range catalogueSizes {
		c, err := b.startCatalogued(ctx, size)
		if c != nil {
			defer c.stop()
		}
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	for round := range b.rounds {
		for i := range all {
			if err := all[(round+i)%len(all)].measure(b.burst / 4); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	for _, what := range []string{"invoke", "deploy", "list functions of a tenant", "list a page of tenants"} {
		for _, c := range all {
			r := make([]float64, len(c.took[what]))
			for i := range r {
				r[i] = c.took[what][i] / all[0].took[what][i]
			}
			name := fmt.Sprintf("catalogue: %s, p50 at %d functions", what, c.size)
			detail := fmt.Sprintf("(%.3f ms, spread %.2f-%.2f)", median(c.took[what]), slices.Min(r), slices.Max(r))
			if c.size == catalogueSizes[0] {
				b.figure(name, median(c.took[what]), " ms", "")
				continue
			}
			b.atMost(name+" against ten", median(r), catalogueBar, " x", detail)
		}
	}
	return nil
}

// startCatalogued seeds a data directory and starts a service on it.
func (b *bench) startCatalogued(ctx context.Context, size int) (*catalogued, error) {
	dir := filepath.Join(b.dir, fmt.Sprint("catalogue-", size))
	began := time.Now()
	if err := seed(ctx, filepath.Join(dir, "data"), size); err != nil {
		return nil, fmt.Errorf("seed %d functions: %w", size, err)
	}
	seeded := time.Since(began)
	began = time.Now()
	s, err := b.startService(ctx, dir, "runc", "--min-ready", "1")
	if err != nil {
		return nil, err
	}
	b.progress("%d functions: seeded in %s, started in %s", size, seeded.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	c := &catalogued{service: s, size: size, took: map[string][]float64{}}
	if err := s.tenant(catalogueProbe, map[string]any{"maxContainers": 1, "ratePerSecond": 1e6}); err != nil {
		return c, err
	}
	for i := range catalogueOfEach {
		if err := s.deploy(catalogueProbe, fmt.Sprintf("fn-%d", i), "module.exports = "+handler+";"); err != nil {
			return c, err
		}
	}
	key, err := s.invokeKey(catalogueProbe)
	if err != nil {
		return c, err
	}
	c.invoke = target{"invoke", s.http, request(s.http, "/v1/functions/fn-0/invoke", input, "Authorization: Bearer "+key), []byte(output)}
	_, err = load(c.invoke, 1, 2*time.Second)
	return c, err
}

// measure does each thing for a while.
func (c *catalogued) measure(d time.Duration) error {
	f, err := load(c.invoke, 1, d)
	if err != nil {
		return err
	}
	c.took["invoke"] = append(c.took["invoke"], ms(f.p50))
	err = c.each("deploy", catalogueDeploy, func() error {
		c.deployed++ // a new version, of functions in turn
		source := fmt.Sprintf("module.exports = %s; // %d", handler, c.deployed)
		return c.deploy(catalogueProbe, fmt.Sprintf("fn-%d", 1+c.deployed%(catalogueOfEach-1)), source)
	})
	if err != nil {
		return err
	}
	err = c.each("list functions of a tenant", catalogueLists, func() error {
		var r struct{ Functions []struct{ Name string } }
		err := c.manage("GET", "/v1/functions", catalogueProbe, nil, &r)
		if err == nil && len(r.Functions) != catalogueOfEach {
			err = fmt.Errorf("%d functions are listed, there are %d", len(r.Functions), catalogueOfEach)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.each("list a page of tenants", catalogueLists, func() error {
		var r struct{ Tenants []struct{ ID string } }
		err := c.manage("GET", "/v1/tenants?page_size=2", "", nil, &r)
		if err == nil && len(r.Tenants) != 2 {
			err = fmt.Errorf("%d tenants on a page of 2", len(r.Tenants))
		}
		return err
	})
}

// each does something n times and notes the median of how long it took.
func (c *catalogued) each(what string, n int, do func() error) error {
	var took []float64
	for range n {
		began := time.Now()
		if err := do(); err != nil {
			return fmt.Errorf("%s at %d functions: %w", what, c.size, err)
		}
		took = append(took, ms(time.Since(began)))
	}
	c.took[what] = append(c.took[what], median(took))
	return nil
}

// seed fills a data directory that no service has yet, through the catalogue itself: in a service each tenant's first upload
// would be compiled in a sandbox of its own.
func seed(ctx context.Context, data string, functions int) (err error) {
	private := filepath.Join(data, "private")
	if err := os.MkdirAll(data, 0o711); err != nil {
		return err
	}
	if err := os.MkdirAll(private, 0o700); err != nil {
		return err
	}
	etcd, err := etcdstore.Embed(ctx, etcdstore.EmbedOptions{Dir: filepath.Join(private, "etcd")})
	if err != nil {
		return err
	}
	defer func() {
		if closed := etcd.Close(); err == nil {
			err = closed
		}
	}()
	blobs, err := catalog.OpenBlobs(filepath.Join(private, "blobs"))
	if err != nil {
		return err
	}
	defer blobs.Close()
	o := catalog.Options{Store: etcd, Blobs: blobs}
	if o.KEK, err = catalog.LoadKEK(filepath.Join(private, "kek")); err != nil {
		return err
	}
	if o.Pepper, err = catalog.LoadPepper(filepath.Join(private, "pepper")); err != nil {
		return err
	}
	if o.View, err = catalog.NewView(catalog.ViewOptions{Store: etcd, Blobs: blobs, KEK: o.KEK}); err != nil {
		return err
	}
	defer o.View.Close()
	<-o.View.Ready()
	svc, err := catalog.NewService(o)
	if err != nil {
		return err
	}
	return seedTenants(ctx, svc, functions/catalogueOfEach)
}

func seedTenants(ctx context.Context, svc *catalog.Service, tenants int) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range 32 { // their writes share syncs of the disk
		group.Go(func() error {
			for i := next.Add(1); i <= int64(tenants); i = next.Add(1) {
				id := tenant.ID(fmt.Sprintf("seeded-%04d", i))
				if _, err := svc.CreateTenant(ctx, id, nil); err != nil {
					return err
				}
				for n := range catalogueOfEach {
					d := catalog.Deployment{Name: fmt.Sprintf("fn-%d", n), Source: fmt.Appendf(nil, "module.exports = () => %d;", n)}
					if _, err := svc.DeployFunction(ctx, id, d); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return group.Wait()
}
