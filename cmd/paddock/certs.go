package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"paddock/internal/pki"
)

const certsHelp = `Make the certificates by which routers, controllers and the store's members on different machines know each other.

'init' makes an authority; keep its ca-key.pem off the machines that serve. 'issue' makes a short-lived certificate for one
process: copy its two files and ca.pem to where it runs. Processes read changed files without a restart, so renewing is
issuing again into the same directory.`

func (a *app) certsCommand() *cobra.Command {
	c := &cobra.Command{Use: "certs", Short: "Make an authority and certificates for several machines", Long: certsHelp,
		Example: `  paddock certs init --dir /root/paddock-ca
  paddock certs issue --role router --name front-1 --out certs/front-1`}
	c.PersistentFlags().BoolVar(&a.jsonOut, "json", false, "print JSON for scripts")
	return group(c, a.certsInit(), a.certsIssue(), a.certsShow())
}

func (a *app) certsInit() *cobra.Command {
	c := &cobra.Command{Use: "init", Short: "Make an authority", Args: args(), Example: "  paddock certs init --dir /root/paddock-ca"}
	dir := c.Flags().String("dir", "paddock-ca", "where ca.pem and ca-key.pem go; never replaced")
	c.RunE = runE(func(*cobra.Command, []string) error {
		if _, err := pki.NewAuthority(*dir, time.Now()); err != nil {
			if errors.Is(err, pki.ErrExists) {
				return usageError("%s has an authority already: name another directory, or remove it if nothing trusts it any more", *dir)
			}
			return platformError("%w", err)
		}
		if a.jsonOut {
			return a.printJSON(map[string]string{"ca": filepath.Join(*dir, pki.CAFile), "key": filepath.Join(*dir, pki.CAKeyFile)})
		}
		fmt.Fprintf(a.stdout, "authority in %s; %s signs, keep it safe\n", *dir, filepath.Join(*dir, pki.CAKeyFile))
		return nil
	})
	return c
}

func (a *app) certsIssue() *cobra.Command {
	c := &cobra.Command{
		Use: "issue", Short: "Make a certificate for one process", Args: args(),
		Example: `  paddock certs issue --role controller --name node-1 --host node-1.internal --host 10.0.0.11 --out certs/node-1
  paddock certs issue --role router --name front-1 --ttl 24h --out certs/front-1
  paddock certs issue --role etcd --name member-1 --host 10.0.0.21 --out certs/member-1
  paddock certs issue --role etcd-admin --name ops --ttl 1h --out certs/ops`,
	}
	f := c.Flags()
	ca := f.String("ca", "paddock-ca", "directory of the authority")
	out := f.String("out", ".", "directory for certificate, key and ca.pem")
	role := f.String("role", "", "router, controller, etcd, etcd-admin or etcd-client")
	name := f.String("name", "", "of the process or its machine")
	hosts := f.StringArray("host", nil, "name or address at which it serves (repeat)")
	ttl := f.Duration("ttl", pki.DefaultTTL, "how long it is valid")
	c.RunE = runE(func(*cobra.Command, []string) error {
		authority, err := pki.LoadAuthority(*ca)
		if err != nil {
			return usageError("%w", err)
		}
		r := pki.Request{Role: pki.Role(*role), Name: *name, Hosts: *hosts, TTL: *ttl}
		if (r.Role == pki.RoleController || r.Role == pki.RoleEtcd) && len(r.Hosts) == 0 {
			return usageError("a %s serves: say at which names or addresses with --host", r.Role)
		}
		now := time.Now()
		cert, key, err := authority.Issue(*out, r, now)
		if err != nil {
			return usageError("%w", err)
		}
		if a.jsonOut {
			return a.printJSON(map[string]any{"cert": cert, "key": key, "ca": filepath.Join(*out, pki.CAFile), "expires": now.Add(r.TTL)})
		}
		fmt.Fprintf(a.stdout, "%s\n%s\n%s\nvalid until %s\n", cert, key, filepath.Join(*out, pki.CAFile), now.Add(r.TTL).Format(time.RFC3339))
		return nil
	})
	return c
}

func (a *app) certsShow() *cobra.Command {
	c := &cobra.Command{Use: "show", Short: "Say whose a certificate is, and until when", Args: args("FILE"),
		Example: "  paddock certs show certs/node-1/controller-node-1.pem"}
	c.RunE = runE(func(_ *cobra.Command, given []string) error {
		data, err := os.ReadFile(given[0])
		if err != nil {
			return usageError("%w", err)
		}
		block, _ := pem.Decode(data)
		if block == nil || block.Type != "CERTIFICATE" {
			return usageError("%s holds no PEM certificate", given[0])
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return usageError("%s: %w", given[0], err)
		}
		role, name, ok := pki.Holder(cert)
		switch {
		case cert.IsCA:
			role, name = pki.RoleAuthority, cert.Subject.CommonName
		case !ok:
			return usageError("%s names no role: 'paddock certs issue' has not made it", given[0])
		}
		var hosts []string
		hosts = append(hosts, cert.DNSNames...)
		for _, ip := range cert.IPAddresses {
			hosts = append(hosts, ip.String())
		}
		left := time.Until(cert.NotAfter).Round(time.Minute)
		if a.jsonOut {
			return a.printJSON(map[string]any{"role": role, "name": name, "hosts": hosts, "expires": cert.NotAfter, "expired": left <= 0})
		}
		fmt.Fprintf(a.stdout, "%s %s\nserves at  %v\nvalid until %s (%s left)\n", role, name, hosts, cert.NotAfter.Format(time.RFC3339), left)
		return nil
	})
	return c
}
