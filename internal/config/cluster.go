package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Defaults of Cluster.
const (
	DefaultListen = ":8082"
	DefaultStatus = "127.0.0.1:8083"
)

// Cluster is what processes on several machines need to find and to trust each other.
type Cluster struct {
	// Etcd is the store that they share.
	Etcd Etcd `yaml:"etcd"`
	// Listen is where a controller serves routers, by mutual TLS; Advertise is the address at which they reach it ("": Listen's,
	// which then must name a host).
	Listen    string `yaml:"listen"`
	Advertise string `yaml:"advertise"`
	// Cert, Key and CA are the certificate of this process, its key and the authority's certificate (`paddock certs`). Changed
	// files are read without a restart.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	CA   string `yaml:"ca"`
	// TrustClass is the class of this controller's machine: it runs the code of tenants of that class and of nobody else.
	TrustClass string `yaml:"trust_class"`
	// Status is where a controller shows /metrics, /healthz and /readyz; "" is nowhere.
	Status string `yaml:"status"`
	// Secrets is the directory of what all routers share: the key-encryption key, the pepper of API keys, the operator's key.
	// "" is inside of DataDir, which does for a single router.
	Secrets string `yaml:"secrets"`
	// Blobs is a directory of stored code, the same for all routers; BlobsShared says that it is. "" keeps code in the store, up to
	// 1 GiB of it, with copies in DataDir.
	Blobs       string `yaml:"blobs"`
	BlobsShared bool   `yaml:"blobs_shared"`
}

// Etcd says how to reach the store.
type Etcd struct {
	// Endpoints are "https://host:2379"; none is the default.
	Endpoints []string `yaml:"endpoints"`
	// Cert, Key and CA are for the store alone; "" is the cluster's own: a store with access control knows roles by it.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	CA   string `yaml:"ca"`
}

// CheckController returns an error that names the first setting with which a controller cannot serve routers.
func (c *Cluster) CheckController() error {
	if err := c.check(); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen %q: use host:port", c.Listen)
	}
	if c.Advertise != "" {
		if host, _, err := net.SplitHostPort(c.Advertise); err != nil || host == "" {
			return fmt.Errorf("advertise %q: use host:port, as routers reach this machine", c.Advertise)
		}
		return nil
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("listen %q takes every address: say with --advertise which one routers should use", c.Listen)
	}
	return nil
}

// CheckRouter returns an error that names the first setting with which a router cannot work.
func (c *Cluster) CheckRouter() error {
	if err := c.check(); err != nil {
		return err
	}
	switch {
	case strings.Contains(c.Blobs, "://"):
		return fmt.Errorf("blobs %q is a URL, and only directories are known: leave --blobs out, and the store keeps the code", c.Blobs)
	case c.Blobs != "" && !c.BlobsShared:
		return fmt.Errorf("blobs %s: every router has to see the same directory: say so with --blobs-shared, or leave --blobs out, and the store keeps "+
			"the code", c.Blobs)
	case c.Blobs == "" && c.BlobsShared:
		return errors.New("blobs is empty: name the directory of stored code that all routers share, or leave --blobs-shared out as well")
	}
	return nil
}

func (c *Cluster) check() error {
	if err := c.Etcd.CheckEndpoints(); err != nil {
		return err
	}
	if c.Cert == "" || c.Key == "" || c.CA == "" {
		return errors.New("cert, key and ca are needed: routers and controllers trust each other by certificate; 'paddock certs' makes them")
	}
	return nil
}

// Store is how to reach the store: what it does not say of certificates is the cluster's.
func (c *Cluster) Store() Etcd {
	e := c.Etcd
	if !slices.ContainsFunc(e.Endpoints, func(u string) bool { return strings.HasPrefix(u, "https://") }) {
		return e
	}
	if e.Cert == "" {
		e.Cert, e.Key = c.Cert, c.Key
	}
	if e.CA == "" {
		e.CA = c.CA
	}
	return e
}

// CheckEndpoints returns an error that says what is wrong with how to reach the store.
func (e *Etcd) CheckEndpoints() error {
	switch {
	case len(e.Endpoints) == 0:
		return errors.New("etcd-endpoints is empty: name the store, for example https://10.0.0.21:2379; 'paddock up' brings one of its own")
	case (e.Cert == "") != (e.Key == ""):
		return errors.New("etcd-cert and etcd-key belong together: give both or none")
	}
	for _, u := range e.Endpoints {
		switch scheme, _, _ := strings.Cut(u, "://"); {
		case scheme == "http" && !loopbackURL(u):
			return fmt.Errorf("etcd endpoint %s is neither TLS nor on this machine: use https://", u)
		case scheme != "http" && scheme != "https":
			return fmt.Errorf("etcd endpoint %q: use https://host:port", u)
		}
	}
	return nil
}

// loopbackURL says whether an endpoint is on this machine.
func loopbackURL(endpoint string) bool {
	host, _, err := net.SplitHostPort(strings.TrimPrefix(endpoint, "http://"))
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
