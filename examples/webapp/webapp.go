// Package webapp is a small real web application for the examples: a login form with a CSRF token, a session cookie, an
// account page behind it. It can be broken on purpose. It keeps everything in memory and is not for production.
package webapp

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"html/template"
	"net/http"
	"sync"
	"sync/atomic"
)

// App is the application. Make one with New; it is an http.Handler, safe for concurrent use.
type App struct {
	mux      http.ServeMux
	accounts map[string]account // by e-mail
	mu       sync.Mutex
	tokens   map[string]bool    // CSRF tokens that were handed out and not used
	sessions map[string]account // by cookie
	forgets  atomic.Bool
}

type account struct{ Name, Password string }

var pages = template.Must(template.New("").Parse(`
{{define "login"}}<!doctype html><title>Log in</title>
<h1>Log in to the shop</h1>{{with .Error}}<p class=error>{{.}}</p>{{end}}
<form method=post action="/login"><input type=hidden name=csrf value="{{.Token}}">
<input name=email type=email><input name=password type=password><button>Log in</button></form>{{end}}
{{define "account"}}<!doctype html><title>Your account</title>
<h1>Welcome back, {{.Name}}</h1><p>You have 3 open orders.</p>{{end}}`))

// New makes the application with one customer.
func New(email, name, password string) *App {
	a := &App{accounts: map[string]account{email: {name, password}}, tokens: map[string]bool{}, sessions: map[string]account{}}
	a.mux.HandleFunc("GET /login", func(w http.ResponseWriter, _ *http.Request) { a.form(w, http.StatusOK, "") })
	a.mux.HandleFunc("POST /login", a.login)
	a.mux.HandleFunc("GET /account", a.account)
	return a
}

// ForgetSessions breaks the application (or mends it): it accepts log-ins and then does not know the session.
func (a *App) ForgetSessions(on bool) { a.forgets.Store(on) }

func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func (a *App) form(w http.ResponseWriter, status int, problem string) {
	token := random()
	a.mu.Lock()
	a.tokens[token] = true
	a.mu.Unlock()
	w.WriteHeader(status)
	pages.ExecuteTemplate(w, "login", map[string]string{"Token": token, "Error": problem})
}

func (a *App) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 8<<10)
	token, email, password := r.PostFormValue("csrf"), r.PostFormValue("email"), r.PostFormValue("password")
	a.mu.Lock()
	known := a.tokens[token]
	delete(a.tokens, token)
	a.mu.Unlock()
	if !known {
		a.form(w, http.StatusForbidden, "The form has expired")
		return
	}
	who, ok := a.accounts[email]
	if !ok || subtle.ConstantTimeCompare([]byte(who.Password), []byte(password)) != 1 {
		a.form(w, http.StatusUnauthorized, "Wrong e-mail or password")
		return
	}
	session := random()
	if !a.forgets.Load() {
		a.mu.Lock()
		a.sessions[session] = who
		a.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: "session", Value: session, Path: "/", HttpOnly: true})
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

func (a *App) account(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie("session"); err == nil {
		a.mu.Lock()
		who, ok := a.sessions[c.Value]
		a.mu.Unlock()
		if ok {
			pages.ExecuteTemplate(w, "account", who)
			return
		}
	}
	http.Redirect(w, r, "/login", http.StatusFound)
}

func random() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
