package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"paddock/internal/pki"
)

// hop compares warm calls of `paddock up`, where the router calls the controller in its own process, with those of a router and a
// controller that are two processes: the difference is the way over paddock.v1.Node with mutual TLS, on loopback.
func (b *bench) hop(ctx context.Context) error {
	isolation := b.isolation
	if isolation == "" {
		isolation = "runc"
	}
	up, err := b.startService(ctx, filepath.Join(b.dir, "hop-up"), isolation, "--min-ready", "1")
	if err != nil {
		return err
	}
	defer up.stop()
	far, stop, err := b.startCluster(ctx, filepath.Join(b.dir, "hop"), isolation)
	defer stop()
	if err != nil {
		return err
	}
	var targets [2]target
	for i, s := range []*service{up, far} {
		if targets[i], err = s.warmTarget(); err != nil {
			return err
		}
		if _, err := load(targets[i], 8, 3*time.Second); err != nil { // compile, optimise, fill caches
			return err
		}
	}
	var one, many [2][]figures
	for round := range b.rounds {
		for i := range targets {
			at := (round + i) % len(targets)
			f, err := load(targets[at], 1, b.burst)
			if err != nil {
				return err
			}
			one[at] = append(one[at], f)
			if f, err = load(targets[at], 32, b.burst); err != nil {
				return err
			}
			many[at] = append(many[at], f)
		}
		b.progress("round %d/%d: p50 %.3f ms in one process, %.3f ms in two", round+1, b.rounds, ms(one[0][round].p50), ms(one[1][round].p50))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	extra := make([]float64, b.rounds)
	for i := range extra {
		extra[i] = ms(one[1][i].p50) - ms(one[0][i].p50)
	}
	p50 := func(f figures) float64 { return ms(f.p50) }
	b.atMost("router's hop to another machine (mutual TLS, loopback), 1 connection, p50, "+isolation, median(extra), 0.25, " ms",
		fmt.Sprintf("(%.3f against %.3f ms, spread %.3f-%.3f)", medianOf(one[1], p50), medianOf(one[0], p50), slices.Min(extra), slices.Max(extra)))
	b.figure("router and controller in two processes, 32 connections, calls/s, "+isolation, medianOf(many[1], perSecond), "/s",
		fmt.Sprintf("(%.0f/s in one process)", medianOf(many[0], perSecond)))
	return nil
}

// startCluster starts one member of the store, one controller and one router. stop ends what was started, whatever the error.
func (b *bench) startCluster(ctx context.Context, dir, isolation string) (front *service, stop func(), err error) {
	var started []*process
	stop = func() {
		for _, p := range slices.Backward(started) {
			p.stop()
		}
	}
	certs := filepath.Join(dir, "certs")
	if err := issue(dir, certs); err != nil {
		return nil, stop, err
	}
	free, err := freeAddresses(3)
	if err != nil {
		return nil, stop, err
	}
	client, peer, node := free[0], free[1], free[2]
	file := func(name string) string { return filepath.Join(certs, name+".pem") }
	store, err := b.start(dir, "store", "store", "--name", "m1", "--client", "https://"+client, "--peer", "https://"+peer, "--members", "m1=https://"+peer,
		"--cert", file("etcd-m1"), "--cert-key", file("etcd-m1-key"), "--ca", filepath.Join(certs, pki.CAFile), "--dir", filepath.Join(dir, "m1"))
	if err != nil {
		return nil, stop, err
	}
	started = append(started, store)
	shared := func(name string) []string {
		return []string{"--etcd-endpoints", "https://" + client, "--cert", file(name), "--cert-key", file(name + "-key"), "--ca", filepath.Join(certs, pki.CAFile)}
	}
	controller, err := b.start(dir, "controller", append([]string{"controller", "--data-dir", filepath.Join(dir, "c1"), "--cache-dir", b.cache, "--listen", node,
		"--status", "", "--isolation", isolation, "--min-ready", "1", "--uid-base", fmt.Sprint(otherUIDs),
		"--ready-file", filepath.Join(dir, "controller.ready")}, shared("controller-c1")...)...)
	if err != nil {
		return nil, stop, err
	}
	started = append(started, controller)
	if err := controller.await(ctx, &struct{}{}); err != nil {
		return nil, stop, err
	}
	secrets := filepath.Join(dir, "secrets")
	front, err = b.startFront(ctx, dir, isolation, filepath.Join(secrets, "operator.key"),
		append([]string{"router", "--data-dir", filepath.Join(dir, "r1"), "--secrets", secrets}, shared("router-r1")...)...)
	if err != nil {
		return nil, stop, err
	}
	started = append(started, front.process)
	return front, stop, nil
}

// otherUIDs is the first user id of sandboxes of the second controller on this machine.
const otherUIDs = 2_000_000_000

// issue makes the certificates of a cluster of one each.
func issue(dir, certs string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	authority, err := pki.NewAuthority(filepath.Join(dir, "ca"), time.Now())
	if err != nil {
		return err
	}
	here := []string{"127.0.0.1"}
	for _, r := range []pki.Request{
		{Role: pki.RoleEtcd, Name: "m1", Hosts: here}, {Role: pki.RoleController, Name: "c1", Hosts: here}, {Role: pki.RoleRouter, Name: "r1"},
	} {
		r.TTL = pki.DefaultTTL
		if _, _, err := authority.Issue(certs, r, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// freeAddresses are some of this machine that nobody uses at the moment.
func freeAddresses(n int) (all []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // at the end, or the next one would be the same
		all = append(all, l.Addr().String())
	}
	return all, nil
}
