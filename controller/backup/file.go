package backup

import (
	"archive/tar"
	"bufio"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"
)

// The file: a line that says what it is, then a tar archive, in clear or under a key derived from a passphrase. The archive's first
// entry says what is in it, the last how much that was, with a sum over all before.
const (
	magic         = "paddock-backup"
	formatVersion = 1
	inClear       = "clear"
	sealed        = "pbkdf2-aes256gcm"
	iterations    = 600_000
	saltBytes     = 16
	segmentBytes  = 1 << 20
	maxHeader     = 256
)

// Names of entries.
const (
	entryManifest = "manifest.json"
	entryRecords  = "records"
	entryEnd      = "end.json"
	filesPrefix   = "files/"
	blobsPrefix   = "blobs/"
)

// maxEntry bounds one entry; what is read comes from a file that somebody may have made.
const maxEntry = 4 << 30

// Manifest says what a backup is of.
type Manifest struct {
	Format   int       `json:"format"`
	Made     time.Time `json:"made"`
	Paddock  string    `json:"paddock"`  // the version that wrote it
	Revision int64     `json:"revision"` // of the store
}

// Counts says how much there is in a backup.
type Counts struct {
	Records int   `json:"records"`
	Blobs   int   `json:"blobs"`
	Files   int   `json:"files"`
	Bytes   int64 `json:"bytes"`
}

type end struct {
	Counts
	SHA256 string `json:"sha256"` // of names, sizes and bytes of all entries before
}

// Errors of a file that is no backup, or no whole one. They say what to do.
var (
	ErrForeign    = errors.New("this is no backup of Paddock's")
	ErrDamaged    = errors.New("the backup is cut short or damaged: take another copy of it")
	ErrPassphrase = errors.New("the backup is encrypted: give the file with its passphrase (--passphrase-file)")
	errUnopened   = fmt.Errorf("it does not open with this passphrase: that is another, or %w", ErrDamaged)
)

// archive writes entries.
type archive struct {
	tar    *tar.Writer
	seal   io.Closer // nil: in clear
	sum    hash.Hash
	counts Counts
}

func newArchive(w io.Writer, passphrase []byte) (*archive, error) {
	a := &archive{sum: sha256.New()}
	if len(passphrase) == 0 {
		if _, err := fmt.Fprintf(w, "%s %d %s\n", magic, formatVersion, inClear); err != nil {
			return nil, err
		}
		a.tar = tar.NewWriter(w)
		return a, nil
	}
	var salt [saltBytes]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return nil, err
	}
	header := fmt.Sprintf("%s %d %s %x\n", magic, formatVersion, sealed, salt)
	if _, err := io.WriteString(w, header); err != nil {
		return nil, err
	}
	aead, err := newAEAD(passphrase, salt[:])
	if err != nil {
		return nil, err
	}
	enc, err := aead.NewEncryptingWriter(w, []byte(header))
	if err != nil {
		return nil, err
	}
	a.seal, a.tar = enc, tar.NewWriter(enc)
	return a, nil
}

func newAEAD(passphrase, salt []byte) (*subtle.AESGCMHKDF, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, iterations, 32)
	if err != nil {
		return nil, err
	}
	return subtle.NewAESGCMHKDF(key, "SHA256", 32, segmentBytes, 0)
}

// add writes one entry.
func (a *archive) add(name string, data []byte) error {
	noteEntry(a.sum, name, int64(len(data)))
	a.sum.Write(data)
	return a.write(name, data)
}

func (a *archive) write(name string, data []byte) error {
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := a.tar.Write(data)
	return err
}

func (a *archive) addJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.add(name, b)
}

// finish writes the last entry.
func (a *archive) finish() error {
	b, err := json.Marshal(end{Counts: a.counts, SHA256: hex.EncodeToString(a.sum.Sum(nil))})
	if err != nil {
		return err
	}
	if err := a.write(entryEnd, b); err != nil {
		return err
	}
	if err := a.tar.Close(); err != nil {
		return err
	}
	if a.seal != nil {
		return a.seal.Close()
	}
	return nil
}

func noteEntry(sum hash.Hash, name string, size int64) { fmt.Fprintf(sum, "%s\x00%d\x00", name, size) }

// open reads the line at the beginning and returns the archive behind it.
func open(r io.Reader, passphrase []byte) (*tar.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(len(magic) + 1)
	if err != nil || string(head) != magic+" " {
		return nil, ErrForeign
	}
	header, err := in.ReadSlice('\n')
	if err != nil || len(header) > maxHeader {
		return nil, ErrDamaged
	}
	line := string(header)
	var version int
	var how, saltHex string
	if n, _ := fmt.Sscanf(strings.TrimSpace(line), magic+" %d %s %s", &version, &how, &saltHex); n < 1 {
		return nil, ErrDamaged
	}
	if version != formatVersion {
		return nil, fmt.Errorf("the backup has format %d, this Paddock reads %d: restore it with the version that made it", version, formatVersion)
	}
	switch how {
	case inClear:
		return tar.NewReader(in), nil
	case sealed:
		if len(passphrase) == 0 {
			return nil, ErrPassphrase
		}
		salt, err := hex.DecodeString(saltHex)
		if err != nil || len(salt) != saltBytes {
			return nil, ErrDamaged
		}
		aead, err := newAEAD(passphrase, salt)
		if err != nil {
			return nil, err
		}
		dec, err := aead.NewDecryptingReader(in, []byte(line))
		if err != nil {
			return nil, errUnopened
		}
		first := bufio.NewReader(dec)
		if _, err := first.Peek(1); err != nil { // the first segment tells whether the key is the one
			return nil, errUnopened
		}
		return tar.NewReader(first), nil
	}
	return nil, fmt.Errorf("%w: it is kept in a way (%.40q) that this version does not know", ErrDamaged, how)
}

// visitor takes an entry of a backup, name without its prefix. It need not read to the end.
type visitor struct {
	records func(io.Reader) error
	file    func(name string, r io.Reader, size int64) error
	blob    func(name string, r io.Reader, size int64) error
}

// scan reads a backup through, hands its entries to v, and checks the sum. What v was given before an error counts for nothing.
func scan(r io.Reader, passphrase []byte, v visitor) (*Manifest, *Counts, error) {
	in, err := open(r, passphrase)
	if err != nil {
		return nil, nil, err
	}
	damaged := func(err error) error { return fmt.Errorf("%w (%w)", ErrDamaged, err) }
	var m *Manifest
	sum := sha256.New()
	for {
		h, err := in.Next()
		if err != nil {
			return nil, nil, damaged(err) // io.EOF too: the last entry was not seen
		}
		if h.Size > maxEntry {
			return nil, nil, damaged(fmt.Errorf("an entry of %d bytes", h.Size))
		}
		if h.Name == entryEnd {
			var e end
			if err := json.NewDecoder(io.LimitReader(in, 1<<20)).Decode(&e); err != nil || m == nil {
				return nil, nil, damaged(errors.New("its last entry cannot be read"))
			}
			if e.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
				return nil, nil, damaged(errors.New("its sum is another"))
			}
			return m, &e.Counts, nil
		}
		noteEntry(sum, h.Name, h.Size)
		body := io.TeeReader(in, sum)
		if m, err = v.take(h, body, m); err != nil {
			return nil, nil, err
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			return nil, nil, damaged(err)
		}
	}
}

// take hands one entry on. The manifest comes first.
func (v visitor) take(h *tar.Header, body io.Reader, m *Manifest) (*Manifest, error) {
	name := h.Name
	switch {
	case m == nil && name == entryManifest:
		m = &Manifest{}
		if err := json.NewDecoder(io.LimitReader(body, 1<<20)).Decode(m); err != nil {
			return nil, fmt.Errorf("%w (%w)", ErrDamaged, err)
		}
		if m.Format != formatVersion {
			return nil, fmt.Errorf("the backup has format %d, this Paddock reads %d: restore it with the version that made it", m.Format, formatVersion)
		}
		return m, nil
	case m == nil:
		return nil, fmt.Errorf("%w (it does not begin with what it is of)", ErrDamaged)
	case name == entryRecords && v.records != nil:
		return m, v.records(body)
	case strings.HasPrefix(name, filesPrefix) && v.file != nil:
		return m, v.file(strings.TrimPrefix(name, filesPrefix), body, h.Size)
	case strings.HasPrefix(name, blobsPrefix) && v.blob != nil:
		return m, v.blob(strings.TrimPrefix(name, blobsPrefix), body, h.Size)
	}
	return m, nil
}
