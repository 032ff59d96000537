package chaos

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// storeClient looks into the store, and breaks it, from beside the cluster. No proxy stands in its way.
type storeClient struct {
	*clientv3.Client
	endpoints []string
	tls       *tls.Config
}

// storeLimit bounds one request to the store.
const storeLimit = 10 * time.Second

func openStore(endpoints []string, cert, key, ca string) (*storeClient, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: x509.NewCertPool()}
	if !secure.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + ca)
	}
	s := &storeClient{endpoints: endpoints, tls: secure}
	if s.Client, err = s.dial(endpoints...); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *storeClient) dial(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: s.tls, DialTimeout: storeLimit, Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second})
}

func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), storeLimit)
}

// leader returns the index of the member that leads; -1 if nobody says that it does.
func (s *storeClient) leader() int {
	for i, e := range s.endpoints {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		st, err := s.Status(ctx, e)
		cancel()
		if err == nil && st.Leader != 0 && st.Leader == st.Header.MemberId {
			return i
		}
	}
	return -1
}

// revision is the store's own count of its writes.
func (s *storeClient) revision() (int64, error) {
	ctx, cancel := bounded()
	defer cancel()
	res, err := s.Get(ctx, store.Root)
	if err != nil {
		return 0, err
	}
	return res.Header.Revision, nil
}

// changed returns the keys that were written after a revision, each as often as it was.
func (s *storeClient) changed(after int64) (keys []string, err error) {
	upTo, err := s.revision()
	if err != nil || upTo == after {
		return nil, err
	}
	ctx, cancel := bounded()
	defer cancel()
	for res := range s.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(after+1)) {
		if err := res.Err(); err != nil {
			return keys, err
		}
		for _, e := range res.Events {
			if e.Kv.ModRevision <= upTo {
				keys = append(keys, string(e.Kv.Key))
			}
		}
		if res.Events[len(res.Events)-1].Kv.ModRevision >= upTo {
			return keys, nil
		}
	}
	return keys, ctx.Err()
}

// keys counts what stands below a prefix, and returns it.
func (s *storeClient) keys(prefix string) (map[string]int64, error) {
	ctx, cancel := bounded()
	defer cancel()
	res, err := s.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	all := map[string]int64{}
	for _, kv := range res.Kvs {
		all[string(kv.Key)] = kv.ModRevision
	}
	return all, nil
}

// registered says which controllers have a record, and of which revision.
func (s *storeClient) registered() (map[string]int64, error) {
	all, err := s.keys(store.ControllersPrefix)
	out := map[string]int64{}
	for key, rev := range all {
		out[strings.TrimPrefix(key, store.ControllersPrefix)] = rev
	}
	return out, err
}

// pointer is what the store says of a function.
type pointer struct{ active, newest, revision int64 }

// pointer reads a function with one linearizable read.
func (s *storeClient) pointer(t, function string) (pointer, error) {
	ctx, cancel := bounded()
	defer cancel()
	res, err := s.Get(ctx, store.Function(tenant.ID(t), function))
	if err != nil || len(res.Kvs) == 0 {
		return pointer{}, err
	}
	var rec pb.FunctionRecord
	if err := proto.Unmarshal(res.Kvs[0].Value, &rec); err != nil {
		return pointer{}, err
	}
	return pointer{rec.GetActive(), rec.GetNewest(), res.Kvs[0].ModRevision}, nil
}

// metric reads one of a member's own metrics.
func (s *storeClient) metric(i int, name string) (float64, error) {
	client := &http.Client{Timeout: storeLimit, Transport: &http.Transport{TLSClientConfig: s.tls, DisableKeepAlives: true}}
	return readMetric(client, s.endpoints[i]+"/metrics", name)
}

// readMetric adds up the samples of one name in a text of metrics.
func readMetric(client *http.Client, url, name string) (sum float64, err error) {
	res, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	found := false
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		found = true
		sum += v
	}
	if !found {
		return 0, fmt.Errorf("%s has no %s", url, name)
	}
	return sum, nil
}
