package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// checkEvery is how often, at most, files are looked at for a change; handshakes ask.
const checkEvery = time.Second

// Source is a certificate, its key and the authority in files. What it makes TLS settings of follows the files: new connections
// are made and judged by what stands there now. Files that cannot be used leave what was read before in force, and are
// complained of. Safe for concurrent use.
type Source struct {
	cert, key, ca string
	log           *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   string // of the files that are in force, or were last tried
	pair    *tls.Certificate
	roots   *x509.CertPool
}

// OpenPublic reads a certificate for callers who show none.
func OpenPublic(certFile, keyFile string, log *slog.Logger) (*Source, error) {
	return Open(certFile, keyFile, "", log)
}

// Open reads the three files.
func Open(certFile, keyFile, caFile string, log *slog.Logger) (*Source, error) {
	s := &Source{cert: certFile, key: keyFile, ca: caFile, log: log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.stamp, s.checked = s.look(), time.Now()
	var err error
	if s.pair, s.roots, err = s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

// look is what the files' names, sizes and times say; another text means other files.
func (s *Source) look() string {
	var b strings.Builder
	for _, path := range []string{s.cert, s.key, s.ca} { // without an authority "none", always
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%d %d;", info.Size(), info.ModTime().UnixNano())
		} else {
			b.WriteString("none;")
		}
	}
	return b.String()
}

func (s *Source) read() (*tls.Certificate, *x509.CertPool, error) {
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		return nil, nil, fmt.Errorf("pki: certificate %s and key %s: %w", s.cert, s.key, err)
	}
	if s.ca == "" {
		return &pair, nil, nil
	}
	pem, err := os.ReadFile(s.ca)
	if err != nil {
		return nil, nil, fmt.Errorf("pki: authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("pki: authority %s holds no certificate", s.ca)
	}
	return &pair, roots, nil
}

// current returns what is in force, after a look at the files if the last one was a while ago.
func (s *Source) current() (*tls.Certificate, *x509.CertPool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.checked) < checkEvery {
		return s.pair, s.roots
	}
	s.checked = now
	stamp := s.look()
	if stamp == s.stamp {
		return s.pair, s.roots
	}
	pair, roots, err := s.read()
	if err != nil {
		s.log.Error("changed certificate files cannot be used: going on with the former ones", "err", err)
		return s.pair, s.roots // the stamp stays: it is tried again
	}
	s.pair, s.roots, s.stamp = pair, roots, stamp
	s.log.Info("certificate files were read again", "cert", s.cert, "until", pair.Leaf.NotAfter)
	return pair, roots
}

// Expires is when the certificate in force ends.
func (s *Source) Expires() time.Time {
	pair, _ := s.current()
	return pair.Leaf.NotAfter
}

// PublicTLS serves with the certificate that is in force, and asks for none.
func (s *Source) PublicTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.shown}
}

func (s *Source) shown(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	pair, _ := s.current()
	return pair, nil
}

// ServerTLS accepts connections of the given roles only; without roles, of everybody whom the authority knows.
func (s *Source) ServerTLS(roles ...Role) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		ClientAuth:             tls.RequireAnyClientCert, // judged below, by the authority that is in force now
		GetCertificate:         s.shown,
		SessionTicketsDisabled: true, // a resumed session would not be judged again
		VerifyConnection:       func(c tls.ConnectionState) error { return s.judge(c, x509.ExtKeyUsageClientAuth, "", roles) },
	}
}

// ClientTLS connects to those of a role that serve at the name or address host; "" does not look at where.
func (s *Source) ClientTLS(host string, roles ...Role) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		ServerName: host,
		// The authority may change while the process runs; VerifyConnection does all that would be done here, by the one in force.
		InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, _ := s.current()
			return pair, nil
		},
		VerifyConnection: func(c tls.ConnectionState) error { return s.judge(c, x509.ExtKeyUsageServerAuth, host, roles) },
	}
}

// judge verifies the other side's certificate and role.
func (s *Source) judge(c tls.ConnectionState, use x509.ExtKeyUsage, host string, roles []Role) error {
	if len(c.PeerCertificates) == 0 {
		return errors.New("pki: the other side showed no certificate")
	}
	_, roots := s.current()
	between := x509.NewCertPool()
	for _, cert := range c.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	leaf := c.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	role, name, ok := Holder(leaf)
	if !ok {
		return errors.New("pki: the other side's certificate names no role")
	}
	if len(roles) > 0 && !slices.Contains(roles, role) {
		return fmt.Errorf("pki: the other side is %s %s, where only %v may be", role, name, roles)
	}
	return nil
}

// Holder says what a certificate says of its holder: that it was signed by whom it should is not asked here.
func Holder(cert *x509.Certificate) (role Role, name string, ok bool) {
	i := slices.IndexFunc(cert.URIs, func(u *url.URL) bool { return u.Scheme == scheme && u.Host == trustDomain })
	if i < 0 {
		return "", "", false
	}
	r, name, ok := strings.Cut(strings.TrimPrefix(cert.URIs[i].Path, "/"), "/")
	if !ok || !nameForm.MatchString(name) {
		return "", "", false
	}
	role, ok = ParseRole(r)
	return role, name, ok
}
