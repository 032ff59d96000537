package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"paddock/cmd/paddock/machine"
	"paddock/controller/catalog"
	"paddock/controller/etcdstore"
	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/pool/egress"
)

// storePart is what the service knows: the store and the catalogue in memory over it.
type storePart struct {
	etcd   *etcdstore.Embedded // nil where the store is a cluster of its own
	client store.Store
	blobs  *catalog.Blobs
	kek    catalog.KEK
	// servingOnly: this process is a controller, which needs no more of the catalogue than its tenants.
	servingOnly bool
	pepper      catalog.Pepper
	view        *catalog.View
}

// openStore starts the embedded store and waits until the catalogue has seen it.
func (s *service) openStore(ctx context.Context) error {
	p, dir := &s.store, s.data.Private()
	log := s.log.With("part", "store")
	var err error
	if p.etcd, err = etcdstore.Embed(ctx, etcdstore.EmbedOptions{
		Dir: filepath.Join(dir, "etcd"), ClientSocket: machine.StoreSocket(s.run.Path), Logger: log, // for 'paddock backup'
	}); err != nil {
		return err
	}
	p.client = p.etcd
	s.onStop("store", func(context.Context, bool) error { return p.etcd.Close() })
	if p.blobs, err = catalog.OpenBlobs(filepath.Join(dir, "blobs")); err != nil {
		return fmt.Errorf("code: %w", err)
	}
	s.onStop("code", func(context.Context, bool) error { return p.blobs.Close() })
	if p.kek, err = catalog.LoadKEK(filepath.Join(dir, "kek")); err != nil {
		return err
	}
	if p.pepper, err = catalog.LoadPepper(filepath.Join(dir, "pepper")); err != nil {
		return err
	}
	if err := s.openView(ctx); err != nil {
		return err
	}
	s.watchStore()
	return nil
}

// openView follows the store, and waits until it has seen it.
func (s *service) openView(ctx context.Context) (err error) {
	p := &s.store
	p.view, err = catalog.NewView(catalog.ViewOptions{
		Store: p.client, Blobs: p.blobs, KEK: p.kek, ServingOnly: p.servingOnly, Maxima: s.cfg.Maxima.Tenant(),
		Logger: s.log.With("part", "catalogue"),
	})
	if err != nil {
		return err
	}
	s.onStop("catalogue", func(context.Context, bool) error { return p.view.Close() })
	select {
	case <-p.view.Ready():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchStore says when the store gives up. Calls go on; only changes have to wait for a restart.
func (s *service) watchStore() {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-stop:
		case <-s.store.etcd.Failed():
			s.log.Error("the store has failed; warm and new tenants are served on, changes need a restart", "err", s.store.etcd.Cause())
		}
	}()
	s.onStop("watch of the store", func(context.Context, bool) error { close(stop); <-done; return nil })
}

// openCatalogue makes the service that changes the catalogue, the operator's key and the tenant that needs no preparation.
func (s *service) openCatalogue(ctx context.Context, remover catalog.Remover, compile catalog.Compiler) (*catalog.Service, error) {
	p := &s.store
	svc, err := catalog.NewService(catalog.Options{
		Store: p.client, View: p.view, Blobs: p.blobs, KEK: p.kek, Pepper: p.pepper, Remover: remover, Compile: compile,
		CheckEgress: checkEgressRule, CheckInject: egress.CheckInjections, Logger: s.log.With("part", "catalogue"),
	})
	if err != nil {
		return nil, err
	}
	// The tenant comes before the key: where there is a key, there was a whole first start, and an operator may have deleted
	// the tenant since.
	if _, err := os.Stat(s.operatorKey()); errors.Is(err, os.ErrNotExist) {
		if _, err := svc.CreateTenant(ctx, defaultTenant, nil); err != nil && !errs.Is(err, errs.Conflict) {
			return nil, fmt.Errorf("tenant %s: %w", defaultTenant, err)
		}
	}
	if err := svc.EnsureOperatorKey(ctx, s.operatorKey()); err != nil {
		return nil, err
	}
	return svc, nil
}
