package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// refused is an answer that was not 200.
type refused struct {
	status int
	kind   string
	retry  string
	text   string
}

func (r *refused) Error() string { return fmt.Sprintf("%d %s: %s", r.status, r.kind, r.text) }

// management talks to one router with the operator's key.
type management struct {
	url    string
	key    string
	client *http.Client
}

func (c *cluster) management(router int) *management {
	return &management{url: c.routers[router].url, key: c.key, client: &http.Client{Timeout: 20 * time.Second}}
}

// do makes a request, as tenant if it is not "", and decodes the answer into out.
func (m *management) do(ctx context.Context, method, path, tenant string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, m.url+path, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+m.key)
	req.Header.Set("Content-Type", "application/json")
	if tenant != "" {
		req.Header.Set("Paddock-Tenant", tenant)
	}
	res, err := m.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return &refused{res.StatusCode, res.Header.Get("Paddock-Error"), res.Header.Get("Retry-After"), text.String()}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text.Bytes(), out)
}

// function is what the API says of a function; numbers come as texts.
type function struct {
	Version         int64 `json:"version,string"`
	DeployedVersion int64 `json:"deployedVersion,string"`
	Revision        int64 `json:"revision,string"`
}

func (m *management) deploy(ctx context.Context, tenant, name, source string, expected int64) (f function, err error) {
	in := map[string]any{"source": []byte(source)}
	if expected > 0 {
		in["expectedRevision"] = fmt.Sprint(expected)
	}
	return f, m.do(ctx, "PUT", "/v1/functions/"+name, tenant, in, &f)
}

func (m *management) activate(ctx context.Context, tenant, name string, version, expected int64) (f function, err error) {
	in := map[string]any{"version": fmt.Sprint(version)}
	if expected > 0 {
		in["expectedRevision"] = fmt.Sprint(expected)
	}
	return f, m.do(ctx, "POST", "/v1/functions/"+name+"/activate", tenant, in, &f)
}

// box is one container as its controller sees it.
type box struct {
	ID, State, Tenant, Cause, Controller string
}

// boxes are a tenant's containers, or all, of every controller: one that does not answer is an error.
func (m *management) boxes(ctx context.Context, tenant string) ([]box, error) {
	var list struct {
		Containers []box
		Missing    []string
	}
	err := m.do(ctx, "GET", "/v1/pool/containers?tenant="+url.QueryEscape(tenant), "", nil, &list)
	if err == nil && len(list.Missing) > 0 {
		err = fmt.Errorf("without the containers of %v", list.Missing)
	}
	return list.Containers, err
}

// admit makes a tenant with the functions that the load calls, and returns a key to call them with.
func (m *management) admit(tenant string, policy map[string]any) (key string, err error) {
	ctx := context.Background()
	if err := m.do(ctx, "POST", "/v1/tenants", "", map[string]any{"id": tenant, "policy": policy}, nil); err != nil {
		return "", err
	}
	for name, source := range map[string]string{"echo": echoSource(tenant, 0), "drip": dripSource(tenant)} {
		if _, err := m.deploy(ctx, tenant, name, source, 0); err != nil {
			return "", err
		}
	}
	var made struct{ Secret string }
	err = m.do(ctx, "POST", "/v1/keys", "", map[string]any{"tenant": tenant, "role": "invoke"}, &made)
	return made.Secret, err
}
