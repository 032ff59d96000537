package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/pflag"

	"paddock/controller/etcdstore"
	"paddock/internal/config"
)

// bindEtcdFlags say how to reach a store that is a cluster of its own.
func bindEtcdFlags(f *pflag.FlagSet, e *config.Etcd, own string) {
	f.StringSliceVar(&e.Endpoints, "etcd-endpoints", nil, "the store, for example https://10.0.0.21:2379 (several: with commas)")
	f.StringVar(&e.Cert, "etcd-cert", "", "certificate for the store, PEM"+own)
	f.StringVar(&e.Key, "etcd-key", "", "its key, PEM")
	f.StringVar(&e.CA, "etcd-ca", "", "authority of the store's certificates, PEM"+own)
}

// dialEtcd connects to a store that is a cluster of its own.
func dialEtcd(ctx context.Context, e config.Etcd, log *slog.Logger) (*etcdstore.Store, error) {
	secure, err := etcdTLS(e)
	if err != nil {
		return nil, err
	}
	return etcdstore.Dial(ctx, etcdstore.Options{Endpoints: e.Endpoints, TLS: secure, Logger: log})
}

// etcdTLS are the settings of the connection; nil is none.
func etcdTLS(e config.Etcd) (*tls.Config, error) {
	if e.CA == "" && e.Cert == "" {
		return nil, nil
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CA != "" {
		pem, err := os.ReadFile(e.CA)
		if err != nil {
			return nil, fmt.Errorf("etcd-ca: %w", err)
		}
		if secure.RootCAs = x509.NewCertPool(); !secure.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd-ca %s holds no certificate", e.CA)
		}
	}
	if e.Cert != "" {
		if _, err := tls.LoadX509KeyPair(e.Cert, e.Key); err != nil {
			return nil, fmt.Errorf("etcd-cert: %w", err)
		}
		secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(e.Cert, e.Key) // as it is now
			return &pair, err
		}
	}
	return secure, nil
}
