package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"paddock/cmd/paddock/machine"
	"paddock/controller/backup"
	"paddock/controller/catalog"
	"paddock/controller/etcdstore"
)

func (a *app) restoreCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "restore FILE", Short: "Put a backup back where there is nothing", Long: restoreHelp, Args: args("FILE"),
		Example: `  paddock restore /mnt/backup/paddock-2025-01-31
  paddock restore paddock.backup --data-dir /srv/paddock --passphrase-file /root/passphrase
  paddock restore paddock.backup --etcd-endpoints https://10.0.0.21:2379 --etcd-ca ca.pem --etcd-cert etcd-admin-ops.pem \
    --etcd-key etcd-admin-ops-key.pem --secrets /srv/paddock/secrets`,
	}
	var p place
	p.bind(c.Flags(), "restore")
	c.RunE = runE(func(cmd *cobra.Command, given []string) error { return a.restore(cmd.Context(), given[0], &p) })
	return c
}

func (a *app) restore(ctx context.Context, file string, p *place) error {
	if err := p.check(); err != nil {
		return err
	}
	passphrase, err := p.readPassphrase()
	if err != nil {
		return err
	}
	m, n, err := backup.Check(file, passphrase)
	if err != nil {
		return usageError("%s: %w", file, err)
	}
	names, err := backup.Files(file, passphrase)
	if err != nil {
		return usageError("%s: %w", file, err)
	}
	if len(p.etcd.Endpoints) > 0 {
		err = a.restoreCluster(ctx, file, passphrase, p)
	} else {
		err = a.restoreUp(ctx, file, passphrase, p)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "restored the backup of %s: %d records, %d pieces of code, %d files of keys\n", m.Made.Format("2006-01-02 15:04:05 MST"), n.Records, n.Blobs, n.Files)
	if p.caDir == "" && slices.Contains(names, caPrefix+"ca-key.pem") {
		fmt.Fprintln(a.stderr, "the backup has the authority of certificates as well: restore elsewhere with --ca-dir, or issue new certificates from a new one")
	}
	return nil
}

// keyFiles writes the files of a backup, none over another, and takes back what it wrote.
type keyFiles struct {
	where   map[string]string // by the name in the backup; "": left out
	written []string
}

func (k *keyFiles) put(name string, data []byte) error {
	path, known := k.where[name]
	switch {
	case !known && !strings.HasPrefix(name, caPrefix):
		return fmt.Errorf("%w (a file has the name %.80q)", backup.ErrDamaged, name)
	case path == "":
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	k.written = append(k.written, path)
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// free says whether nothing stands where the files go.
func (k *keyFiles) free() error {
	for _, path := range k.where {
		if _, err := os.Lstat(path); path != "" && err == nil {
			return usageError("%s is there already: a backup is restored beside nothing; move it away, or name another directory", path)
		}
	}
	return nil
}

func (k *keyFiles) takeBack() {
	for _, path := range k.written {
		_ = os.Remove(path)
	}
}

func newKeyFiles(p *place, secrets, operator string) *keyFiles {
	k := &keyFiles{where: map[string]string{
		kekName: filepath.Join(secrets, kekName), pepperName: filepath.Join(secrets, pepperName), operatorName: operator,
	}}
	for name, path := range p.caFiles() {
		k.where[name] = path
	}
	return k
}

// restoreCluster fills an empty store, and the directory of the routers' keys.
func (a *app) restoreCluster(ctx context.Context, file string, passphrase []byte, p *place) (err error) {
	keys := newKeyFiles(p, p.secrets, filepath.Join(p.secrets, operatorName))
	if err := keys.free(); err != nil {
		return err
	}
	client, err := dialEtcd(ctx, p.etcd, nil)
	if err != nil {
		return platformError("%w", err)
	}
	defer client.Close()
	target := backup.Target{Store: client, Put: keys.put}
	if err := target.Empty(ctx); err != nil {
		return usageError("%w", err)
	}
	if p.blobs == "" {
		target.Blobs, err = catalog.OpenStoreBlobs(ctx, client, "")
	} else {
		target.Blobs, err = catalog.OpenBlobs(p.blobs)
	}
	if err != nil {
		return platformError("code: %w", err)
	}
	defer target.Blobs.Close()
	for _, dir := range []string{p.secrets, p.caDir} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return platformError("%w", machine.Explain(err))
			}
		}
	}
	if err := backup.Restore(ctx, file, passphrase, target); err != nil {
		keys.takeBack()
		return platformError("nothing was restored: %w", machine.Explain(err))
	}
	return nil
}

// restoreUp fills an empty data directory: beside first, and then in its place by two renames.
func (a *app) restoreUp(ctx context.Context, file string, passphrase []byte, p *place) error {
	made, err := emptyDataDir(p.dataDir)
	if err != nil {
		return err
	}
	d, err := machine.OpenDataDir(p.dataDir)
	if err != nil {
		return platformError("%w", err)
	}
	stage, done := d.Restoring(), false
	defer func() {
		if !done {
			_ = os.RemoveAll(stage)
			for _, path := range []string{d.OperatorKey(), d.Images(), d.Private(), d.IDFile(), d.LockFile()} {
				_ = os.Remove(path) // nothing else is there
			}
		}
		_ = d.Close()
		if !done && made {
			_ = os.Remove(p.dataDir)
		}
	}()
	if p.caDir != "" {
		if err := os.MkdirAll(p.caDir, 0o700); err != nil {
			return platformError("%w", machine.Explain(err))
		}
	}
	if err := fillStage(ctx, file, passphrase, p, stage); err != nil {
		return platformError("nothing was restored: %w", machine.Explain(err))
	}
	if err := os.Rename(filepath.Join(stage, operatorName), d.OperatorKey()); err != nil {
		return platformError("nothing was restored: %w", err)
	}
	if err := errors.Join(os.Remove(d.Private()), os.Rename(filepath.Join(stage, "private"), d.Private())); err != nil {
		return platformError("nothing was restored: %w", err)
	}
	done = true
	_ = os.Remove(stage) // empty; a start removes it, too
	return nil
}

// emptyDataDir says whether the directory was not there at all, and refuses one with anything in it but what a broken-off restore
// left, which it removes.
func emptyDataDir(dir string) (absent bool, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, platformError("%w", err)
	}
	d := machine.DataDir{Path: dir}
	_, err = os.Stat(d.Restoring())
	brokenOff := err == nil
	if private, err := os.ReadDir(d.Private()); brokenOff && len(private) == 0 && (err == nil || errors.Is(err, os.ErrNotExist)) {
		_ = os.Remove(d.OperatorKey())
		return false, os.RemoveAll(d.Restoring())
	}
	for _, e := range entries {
		switch e.Name() {
		case "lost+found", "lock", "id": // of a directory that was taken once and never used
			continue
		case "images", "private":
			if below, err := os.ReadDir(filepath.Join(dir, e.Name())); err == nil && len(below) == 0 {
				continue
			}
		}
		return false, usageError("%s is not empty (it has %s): a backup is restored where there is nothing; name another --data-dir, or move this one away",
			dir, e.Name())
	}
	return false, nil
}

// fillStage puts a backup into a directory of its own.
func fillStage(ctx context.Context, file string, passphrase []byte, p *place, stage string) (err error) {
	private := filepath.Join(stage, "private")
	if err := os.MkdirAll(private, 0o700); err != nil {
		return err
	}
	keys := newKeyFiles(p, private, filepath.Join(stage, operatorName))
	if err := keys.free(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			keys.takeBack()
		}
	}()
	s, err := etcdstore.Embed(ctx, etcdstore.EmbedOptions{Dir: filepath.Join(private, "etcd")})
	if err != nil {
		return err
	}
	blobs, err := catalog.OpenBlobs(filepath.Join(private, "blobs"))
	if err != nil {
		return errors.Join(err, s.Close())
	}
	err = backup.Restore(ctx, file, passphrase, backup.Target{Store: s, Blobs: blobs, Put: keys.put})
	return errors.Join(err, blobs.Close(), s.Close())
}
