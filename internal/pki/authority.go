// Package pki makes the certificates by which Paddock's processes on different machines know each other: an authority of one's
// own, short-lived certificates that name a role, and TLS settings that read changed files without a restart. It is no general
// authority: nothing is revoked, certificates are short instead.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Role is what the holder of a certificate is.
type Role string

// The roles. A certificate is for one of them; RoleAuthority's signs the others.
const (
	RoleRouter     Role = "router"
	RoleController Role = "controller"
	RoleEtcd       Role = "etcd"        // a member of the store
	RoleClient     Role = "etcd-client" // of a store without access control
	RoleAdmin      Role = "etcd-admin"  // sets the store's access control, backs it up
	RoleAuthority  Role = "authority"
)

// ParseRole returns the role named s, one that a certificate can be issued for, and whether there is one.
func ParseRole(s string) (Role, bool) {
	switch r := Role(s); r {
	case RoleRouter, RoleController, RoleEtcd, RoleClient, RoleAdmin:
		return r, true
	}
	return "", false
}

// CommonName is that of the role's certificates: etcd takes it for the user's name.
func (r Role) CommonName() string { return "paddock-" + string(r) }

// Names of files in a directory of certificates.
const (
	CAFile    = "ca.pem"
	CAKeyFile = "ca-key.pem" // signs; belongs on no machine that serves
)

// How long things are valid.
const (
	DefaultTTL = 72 * time.Hour
	MaxTTL     = 365 * 24 * time.Hour
	caTTL      = 10 * 365 * 24 * time.Hour
	backdate   = 5 * time.Minute // clocks differ
)

// scheme and trustDomain of the URI in which a certificate says its role: paddock://cluster/<role>/<name>.
const (
	scheme      = "paddock"
	trustDomain = "cluster"
)

// Authority signs certificates. Safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// ErrExists says that there is an authority in the directory already.
var ErrExists = errors.New("there is an authority already")

// NewAuthority makes an authority and writes ca.pem and ca-key.pem (0600) into dir, which is made 0700 if it is absent. It never
// replaces one.
func NewAuthority(dir string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Paddock authority"},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(caTTL),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	// The key comes first and must not be there: two who make one at a time do not both win.
	if err := create(filepath.Join(dir, CAKeyFile), keyPEM, 0o600); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("pki: %s: %w", dir, ErrExists)
		}
		return nil, fmt.Errorf("pki: %w", err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := replace(filepath.Join(dir, CAFile), certPEM, 0o644); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return LoadAuthority(dir)
}

// LoadAuthority reads what NewAuthority wrote.
func LoadAuthority(dir string) (*Authority, error) {
	certPEM, err := os.ReadFile(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, fmt.Errorf("pki: %w; 'paddock certs init' makes an authority", err)
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, CAKeyFile))
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, fmt.Errorf("pki: %s is no PEM file", filepath.Join(dir, CAFile))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("pki: %s: %w", filepath.Join(dir, CAFile), err)
	}
	keyBlock, _ := pem.Decode(keyPEM)
	if keyBlock == nil {
		return nil, fmt.Errorf("pki: %s is no PEM file", filepath.Join(dir, CAKeyFile))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("pki: %s: %w", filepath.Join(dir, CAKeyFile), err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("pki: %s and %s in %s do not belong together", CAFile, CAKeyFile, dir)
	}
	return &Authority{cert: cert, key: key, pem: certPEM}, nil
}

// Request says what a certificate is to be.
type Request struct {
	Role  Role
	Name  string   // of its holder: a controller's id, a machine's name
	Hosts []string // names and addresses at which it serves
	TTL   time.Duration
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func (r *Request) check() error {
	if _, ok := ParseRole(string(r.Role)); !ok {
		return fmt.Errorf("pki: role %.40q: use router, controller, etcd, etcd-client or etcd-admin", r.Role)
	}
	if !nameForm.MatchString(r.Name) {
		return fmt.Errorf("pki: name %.80q: use 1 to 63 letters, digits, '.', '_' and '-', starting with a letter or digit", r.Name)
	}
	if r.TTL == 0 {
		r.TTL = DefaultTTL
	}
	if r.TTL < time.Minute || r.TTL > MaxTTL {
		return fmt.Errorf("pki: ttl %s: use 1m to %s", r.TTL, MaxTTL)
	}
	return nil
}

// Issue makes a key and a certificate, writes NAME.pem and NAME-key.pem (0600) into dir, NAME being role-name, with the
// authority's certificate beside them, and returns both paths. Both files are replaced by rename, the key first: who reads them
// in between sees a pair that does not fit, and reads again.
func (a *Authority) Issue(dir string, r Request, now time.Time) (certFile, keyFile string, err error) {
	if err := r.check(); err != nil {
		return "", "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("pki: %w", err)
	}
	der, err := a.sign(r, &key.PublicKey, now)
	if err != nil {
		return "", "", err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", fmt.Errorf("pki: %w", err)
	}
	base := filepath.Join(dir, string(r.Role)+"-"+r.Name)
	certFile, keyFile = base+".pem", base+"-key.pem"
	for _, f := range []struct {
		path string
		data []byte
		mode os.FileMode
	}{
		{keyFile, keyPEM, 0o600}, {certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644},
		{filepath.Join(dir, CAFile), a.pem, 0o644},
	} {
		if err := replace(f.path, f.data, f.mode); err != nil {
			return "", "", fmt.Errorf("pki: %w", err)
		}
	}
	return certFile, keyFile, nil
}

func (a *Authority) sign(r Request, public *ecdsa.PublicKey, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	end := now.Add(r.TTL)
	if a.cert.NotAfter.Before(end) {
		end = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: r.Role.CommonName(), SerialNumber: r.Name},
		NotBefore: now.Add(-backdate), NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: scheme, Host: trustDomain, Path: "/" + string(r.Role) + "/" + r.Name}},
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return der, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return n, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// create writes a file that must not be there.
func create(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

// replace writes a file whole or not at all.
func replace(path string, data []byte, mode os.FileMode) error {
	tmp := path + ".new"
	_ = os.Remove(tmp)
	if err := create(tmp, data, mode); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return nil
}
