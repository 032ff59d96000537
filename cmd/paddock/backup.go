package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"paddock/cmd/paddock/machine"
	"paddock/controller/backup"
	"paddock/controller/catalog"
	"paddock/controller/etcdstore"
	"paddock/controller/store"
	"paddock/internal/config"
	"paddock/internal/pki"
)

const backupHelp = `Write all that must not be lost into one file: tenants, API keys, functions with their code, pipelines and secrets as the store has them at
one moment, and the files of keys that open them. Of 'paddock up' on this machine, running or not; or, with --etcd-endpoints, of a cluster.

Who has the file can read all code and all secrets and do what the operator may: it is 0600, and with --passphrase-file encrypted. Keep
it elsewhere. The audit log, logs and calls are not in it, nor are certificates but those of --ca-dir.`

const restoreHelp = `Put a backup back where there is nothing: into an empty --data-dir, for 'paddock up'; or, with --etcd-endpoints, into an empty store and a
directory for the routers' keys, before the first router starts.

The file is read through before anything is written, and what cannot be restored whole is not restored at all. What was running when
the backup was made is not believed: sandboxes are made anew.`

// place is where a service keeps what a backup is made of.
type place struct {
	dataDir    string
	etcd       config.Etcd
	secrets    string
	blobs      string
	caDir      string
	passphrase string // file
}

func (p *place) bind(f *pflag.FlagSet, forWhat string) {
	f.StringVar(&p.dataDir, "data-dir", config.DefaultDataDir, "of 'paddock up'")
	bindEtcdFlags(f, &p.etcd, "")
	f.StringVar(&p.secrets, "secrets", "", "directory of the keys that all routers share, of a cluster")
	f.StringVar(&p.blobs, "blobs", "", "directory of stored code, of a cluster whose routers have one (default: the store keeps it)")
	f.StringVar(&p.caDir, "ca-dir", "", "directory of the authority ('paddock certs init'), to "+forWhat+" as well")
	f.StringVar(&p.passphrase, "passphrase-file", "", "file whose first line is the passphrase that the backup is encrypted with")
}

func (p *place) check() error {
	switch cluster := len(p.etcd.Endpoints) > 0; {
	case !cluster && (p.secrets != "" || p.blobs != "" || p.etcd.Cert != "" || p.etcd.CA != ""):
		return usageError("--secrets, --blobs and --etcd-* are of a cluster: name its store with --etcd-endpoints, or leave them out")
	case !cluster:
		return nil
	case p.secrets == "":
		return usageError("--secrets is needed: the directory with kek, pepper and operator.key that all routers share; a backup without them opens nothing")
	}
	if err := p.etcd.CheckEndpoints(); err != nil {
		return usageError("%w", err)
	}
	return nil
}

// readPassphrase returns nil where none is asked for.
func (p *place) readPassphrase() ([]byte, error) {
	if p.passphrase == "" {
		return nil, nil
	}
	b, err := os.ReadFile(p.passphrase)
	if err != nil {
		return nil, usageError("passphrase-file: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimRight(line, "\r"); len(line) < minPassphrase {
		return nil, usageError("the passphrase in %s has %d bytes: use %d or more", p.passphrase, len(line), minPassphrase)
	}
	return []byte(line), nil
}

const minPassphrase = 12

// Names of files in a backup.
const (
	kekName      = "kek"
	pepperName   = "pepper"
	operatorName = "operator.key"
	caPrefix     = "ca/"
)

// caFiles are the files of --ca-dir by their names in a backup.
func (p *place) caFiles() map[string]string {
	if p.caDir == "" {
		return nil
	}
	return map[string]string{
		caPrefix + pki.CAFile: filepath.Join(p.caDir, pki.CAFile), caPrefix + pki.CAKeyFile: filepath.Join(p.caDir, pki.CAKeyFile),
	}
}

func (a *app) backupCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "backup FILE", Short: "Write everything that must not be lost into one file", Long: backupHelp, Args: args("FILE"),
		Example: `  paddock backup /mnt/backup/paddock-2025-01-31
  paddock backup /mnt/backup/paddock-2025-01-31 --passphrase-file /root/passphrase --ca-dir /root/paddock-ca
  paddock backup paddock.backup --etcd-endpoints https://10.0.0.21:2379 --etcd-ca ca.pem --etcd-cert etcd-admin-ops.pem \
    --etcd-key etcd-admin-ops-key.pem --secrets /srv/paddock/secrets`,
	}
	var p place
	p.bind(c.Flags(), "back up")
	c.RunE = runE(func(cmd *cobra.Command, given []string) error { return a.backup(cmd.Context(), given[0], &p) })
	return c
}

func (a *app) backup(ctx context.Context, file string, p *place) error {
	if err := p.check(); err != nil {
		return err
	}
	passphrase, err := p.readPassphrase()
	if err != nil {
		return err
	}
	src := backup.Source{Paddock: release(), Passphrase: passphrase, Files: p.caFiles()}
	if src.Files == nil {
		src.Files = map[string]string{}
	}
	closeAll, err := a.openSource(ctx, p, &src)
	if err != nil {
		return err
	}
	defer closeAll()
	m, n, err := backup.Write(ctx, file, src)
	if err != nil {
		return platformError("backup: %w", machine.Explain(err))
	}
	fmt.Fprintf(a.stdout, "%s: %d records at revision %d, %d pieces of code, %d files of keys\n", file, n.Records, m.Revision, n.Blobs, n.Files)
	if passphrase == nil {
		fmt.Fprintln(a.stderr, "WARNING: the backup is not encrypted. Who reads it has all code, all secrets and the operator's key; --passphrase-file encrypts it.")
	}
	return nil
}

// openSource reaches the store and the code of a cluster, of a running 'paddock up', or of one that is stopped.
func (a *app) openSource(ctx context.Context, p *place, src *backup.Source) (_ func(), err error) {
	var undo []func() error
	closeAll := func() {
		for i := len(undo) - 1; i >= 0; i-- {
			_ = undo[i]()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	secrets, operator := p.secrets, filepath.Join(p.secrets, operatorName)
	if len(p.etcd.Endpoints) > 0 {
		client, err := dialEtcd(ctx, p.etcd, nil)
		if err != nil {
			return nil, platformError("%w", err)
		}
		undo = append(undo, client.Close)
		src.Store = client
		if p.blobs == "" {
			src.Blobs, err = catalog.OpenStoreBlobs(ctx, client, "")
		} else {
			src.Blobs, err = catalog.OpenBlobs(p.blobs)
		}
		if err != nil {
			return nil, platformError("code: %w", err)
		}
	} else {
		s, end, err := a.storeOfUp(ctx, p.dataDir)
		if err != nil {
			return nil, err
		}
		undo = append(undo, end)
		src.Store = s
		d := machine.DataDir{Path: p.dataDir}
		secrets, operator = d.Private(), d.OperatorKey()
		if src.Blobs, err = catalog.OpenBlobs(filepath.Join(d.Private(), "blobs")); err != nil {
			return nil, platformError("code: %w", err)
		}
	}
	undo = append(undo, src.Blobs.Close)
	src.Files[kekName], src.Files[pepperName] = filepath.Join(secrets, kekName), filepath.Join(secrets, pepperName)
	src.Files[operatorName] = operator
	return closeAll, nil
}

// storeOfUp is the store of the 'paddock up' with that data directory: by its socket if it runs, else opened here.
func (a *app) storeOfUp(ctx context.Context, dir string) (store.Store, func() error, error) {
	if _, err := os.Stat(filepath.Join((&machine.DataDir{Path: dir}).Private(), "etcd")); err != nil {
		return nil, nil, usageError("%s holds nothing of 'paddock up' (%w): name its --data-dir, or a cluster's store with --etcd-endpoints", dir, err)
	}
	d, err := machine.OpenDataDir(dir)
	if errors.Is(err, machine.ErrInUse) {
		id, err := machine.ReadID(dir)
		if err != nil {
			return nil, nil, platformError("%w", err)
		}
		s, err := etcdstore.Dial(ctx, etcdstore.Options{Endpoints: []string{"unix://" + machine.StoreSocket(filepath.Join(runBase(a.getenv), id))}})
		if err != nil {
			return nil, nil, platformError("'paddock up' with %s runs, and its store does not answer: %w", dir, err)
		}
		return s, s.Close, nil
	}
	if err != nil {
		return nil, nil, platformError("%w", err)
	}
	s, err := etcdstore.Embed(ctx, etcdstore.EmbedOptions{Dir: filepath.Join(d.Private(), "etcd")})
	if err != nil {
		_ = d.Close()
		return nil, nil, platformError("%w", err)
	}
	return s, func() error { return errors.Join(s.Close(), d.Close()) }, nil
}
