'use strict';
// Runs a pipeline: the steps of one call, in order, each with its own secrets, logs and time. Rules hand {user, context} on,
// actions add to one set of effects. What becomes of a step that fails is its policy's affair (fail, skip, last_good);
// a refusal (UnauthorizedError, api.access.deny) ends the pipeline whatever the policy, and whenever it comes: also from a
// step that was given up before.
//
// As long as some step from here on has a policy or a time of its own, each step starts from a copy of the state, and the
// host is told of each before the next one begins (STEP), so that it can go on elsewhere and never runs a finished step
// again. Otherwise steps share their objects, and nothing is said before the end.

const P = require('./primordials.js');
const { shapeOf } = require('./shapes.js');
const { AgentError, accessDenied, describe, describeLoad, isDenial, isObject, serializeError } = require('./errors.js');

const { jsonParse, jsonStringify, hasOwn, now } = P;

const FAIL = 'fail';
const SKIP = 'skip';
const LAST_GOOD = 'last_good';
const REST = 'rest'; // why a version that is not to be run has not run

const LOOK_MS = 1000; // a step that runs for so long is named to the host
const SHORT = 4096; // bytes of an error in a STEP, about
const LONGEST = 20000; // units of an error's text, so that it fits into a head

// own reads what a head really has: a patched Object.prototype must not speak for it.
const own = (object, key) => (hasOwn(object, key) ? object[key] : undefined);

const isPlain = (thing) => isObject(thing) && typeof thing !== 'function' && !P.arrayIsArray(thing);

// planOf returns {steps, missing}: what INVOKE's head says of the steps, with their code, and the hashes that the cache has
// not.
function planOf(head, cache) {
  const steps = [];
  const missing = [];
  const find = (hash) => {
    const code = cache.get(hash);
    if (code === undefined) P.arrayPush(missing, hash);
    return code;
  };
  const sets = secretSets(head);
  for (let i = 0; i < head.steps.length; i++) {
    const given = head.steps[i];
    const fallback = own(given, 'fallback');
    const set = own(given, 'set');
    P.arrayPush(steps, {
      __proto__: null,
      name: own(given, 'name'),
      ms: own(given, 'ms') ?? 0,
      policy: own(given, 'policy') ?? FAIL,
      rest: own(given, 'rest') === true, // its version is not to be run
      code: find(given.code),
      fallback: fallback === undefined ? null : find(fallback),
      secrets: set === undefined ? undefined : sets[set].secrets,
      rev: set === undefined ? undefined : sets[set].rev,
    });
  }
  return { steps, missing };
}

// secretSets puts the sets together whose values the head carries once each.
function secretSets(head) {
  const sets = [];
  const values = own(head, 'values') ?? [];
  const given = own(head, 'sets') ?? [];
  for (let i = 0; i < given.length; i++) {
    const secrets = {};
    for (let k = 0; k < given[i].of.length; k++) {
      const pair = values[given[i].of[k]];
      P.defineProperty(secrets, pair[0], { value: pair[1], writable: true, enumerable: true, configurable: true });
    }
    P.arrayPush(sets, { secrets, rev: given[i].rev });
  }
  return sets;
}

// Step is one run of one version. To the code that runs in it, and to what calls that code (shapes.js), it is the call: it is
// in the async context, is answered or fails once, and settles when its code is over.
class Step {
  constructor(pipeline, index, code) {
    const { call } = pipeline;
    const plan = pipeline.steps[index];
    this.pipeline = pipeline;
    this.owner = call; // whose log it writes to
    this.link = call.link;
    this.index = index;
    this.code = code;
    this.began = now();
    this.head = {
      id: call.head.id,
      ms: P.max(0, P.round((call.head.ms ?? 0) - (this.began - call.started))),
      name: plan.name,
      tenant: call.head.tenant,
      secrets: plan.secrets,
      rev: plan.rev,
      config: call.head.config,
      meta: call.head.meta,
    };
    this.globals = pipeline.kind;
    this.scratch = null;
    this.indent = '';
    this.input = null;
    this.user = null;
    this.context = null;
    this.effects = null; // an action's
    this.denial = null; // what api.access.deny said
    this.ended = false; // it has answered, failed, or is not waited for any more
    this.failed = false; // and its policy made another step, or another version, go on
    this.settled = false;
    this.timer = null;
  }

  // start runs the code. It is called in the step's async context.
  start() {
    const { ms } = this.pipeline.steps[this.index];
    if (ms > 0) this.timer = P.setTimeout(() => this.expire(), ms);
    try {
      if (this.code.error !== null) return this.failAs('load_error', this.code.error, true);
      const instance = this.code.evaluate(this.head);
      if (instance.ready) return this.execute(instance);
      P.then(
        instance.pending,
        () => this.execute(instance),
        (e) => this.fail(e, true),
      );
    } catch (e) {
      this.fail(e, true);
    }
  }

  execute(instance) {
    if (this.ended) return this.settle();
    try {
      shapeOf(instance, this.pipeline.kind).start(this);
    } catch (e) {
      this.fail(e, true);
    }
  }

  expire() {
    if (this.ended) return;
    const { ms } = this.pipeline.steps[this.index];
    const text = `the step did not end within its ${ms} ms`;
    this.failAs('timeout', new AgentError('TimeoutError', text, 'ERR_STEP_TIMEOUT'), false);
  }

  // overdue says whether a step that ends now has taken longer than it may: code that holds the event loop holds its own timer
  // as well.
  overdue() {
    const { ms } = this.pipeline.steps[this.index];
    return ms > 0 && now() - this.began > ms;
  }

  // end stops waiting for the step.
  end() {
    this.ended = true;
    if (this.timer !== null) P.clearTimeout(this.timer);
  }

  answer(value, settled) {
    if (this.ended) return settled ? this.settle() : undefined;
    if (this.denial !== null) return this.fail(this.denial, settled);
    if (this.overdue()) {
      this.expire();
      return settled ? this.settle() : undefined;
    }
    this.end();
    if (settled) this.settle();
    this.pipeline.answered(this, value);
  }

  fail(error, settled) {
    this.failAs('error', error, settled);
  }

  // failAs takes a failure, or a refusal: the first that the step says counts, and a refusal counts also after it has failed
  // otherwise.
  failAs(why, error, settled) {
    const refusal = this.denial ?? (why === 'error' && isDenial(error) ? error : null);
    if (this.ended) {
      if (refusal !== null && this.failed) this.pipeline.refuse(this, refusal);
      return settled ? this.settle() : undefined;
    }
    this.end();
    if (settled) this.settle();
    if (refusal !== null) return this.pipeline.refuse(this, refusal);
    this.failed = true;
    this.pipeline.stepFailed(this, why, error);
  }

  // hear is told what the code calls back while it still runs, before anything else is done about it: what comes after a
  // refusal, an endless loop, say, must not keep it from being heard.
  hear(error) {
    if (error && isDenial(error)) this.failAs('error', error, false);
  }

  // deny is told of api.access.deny. The action may go on; how it ends changes nothing any more.
  deny(reason) {
    if (this.denial !== null) return;
    this.denial = accessDenied(reason);
    if (!this.ended) this.pipeline.denied(this);
    else if (this.failed) this.pipeline.refuse(this, this.denial);
  }

  // thrown takes what nobody handled in the step's async context, and says whether it became the step's end.
  thrown(error) {
    if (this.ended) {
      const late = this.failed && !this.pipeline.over && isDenial(error);
      if (late) this.pipeline.refuse(this, error);
      return late;
    }
    this.fail(error, true);
    return true;
  }

  settle() {
    if (this.settled || !this.ended) return;
    this.settled = true;
    this.pipeline.settled();
  }
}

// Pipeline is the run of a call's steps. Exactly one RESULT leaves, by the call.
class Pipeline {
  constructor(call, steps) {
    this.call = call;
    this.steps = steps;
    this.kind = call.head.kind;
    this.next = own(call.head, 'from') ?? 0;
    this.told = 0; // up to the last step that has a policy or a time of its own, the host is told
    for (let i = 0; i < steps.length; i++) if (steps[i].policy !== FAIL || steps[i].ms > 0) this.told = i + 1;
    this.state = null; // {user, context}, or effects
    this.text = ''; // the same as JSON, '' where it has not been written: of it, copies are made
    this.event = ''; // the JSON text of the actions' event
    this.step = null; // that runs
    this.failure = null; // {why, error} of the version whose fallback runs
    this.began = 0; // when the step did
    this.times = ''; // µs of the steps that the host was not told of
    this.shown = -1; // the step of which it was said that it runs
    this.look = null; // timer
    this.unsettled = 0; // steps whose code is not over
    this.over = false; // the call is answered
    this.ready = false; // the next step may begin
    this.going = false;
  }

  // begin takes the input, which is JSON, and runs the first step.
  begin() {
    const complaint = this.kind === 'action' ? this.takeEvent() : this.takeState();
    if (complaint === '') return this.goOn();
    this.close();
    this.call.invalid(complaint);
  }

  takeState() {
    const { input } = this.call;
    if (!isPlain(input)) return 'a pipeline of rules takes {"user": {…}, "context": {…}}';
    const user = own(input, 'user') ?? {};
    const context = own(input, 'context') ?? {};
    if (!isPlain(user)) return 'user is no object';
    if (!isPlain(context)) return 'context is no object';
    this.state = { user, context };
    if (this.told > this.next) this.text = jsonStringify(this.state);
    return '';
  }

  // takeEvent takes an action's event or, where the pipeline goes on, {input, effects}.
  takeEvent() {
    let { input } = this.call;
    this.event = this.call.raw;
    this.state = { commands: [] };
    if (own(this.call.head, 'resumed') === true) {
      this.state = input.effects;
      input = input.input;
      this.event = jsonStringify(input);
    }
    if (!isPlain(input)) return 'a pipeline of actions takes an event, a JSON object';
    if (this.told > this.next) this.text = jsonStringify(this.state);
    return '';
  }

  goOn() {
    this.ready = true;
    this.go();
  }

  // go runs steps as long as they end at once.
  go() {
    if (this.going) return;
    this.going = true;
    while (this.ready && !this.over) {
      this.ready = false;
      if (this.failure !== null) this.run(this.steps[this.next].fallback);
      else if (this.next < this.steps.length) this.runNext();
      else this.complete();
    }
    this.going = false;
    if (!this.over && this.look === null && this.told < this.steps.length) this.lookLater();
  }

  lookLater() {
    this.look = P.setTimeout(() => this.name(), LOOK_MS);
  }

  // name tells the host which step runs, if it could not know: should the pipeline not end in time, that is the one.
  name() {
    if (this.over) return;
    const index = this.step === null ? -1 : this.step.index;
    if (index >= this.told && index !== this.shown) {
      this.shown = index;
      const head = `{"index":${index},"outcome":"running","times":[${this.times}]}`;
      this.times = '';
      this.call.link.step(this.call, head, '', () => {});
    }
    this.lookLater();
  }

  // close is called once nothing more is to run.
  close() {
    this.over = true;
    if (this.look !== null) P.clearTimeout(this.look);
  }

  // runNext begins the next step, or does what its policy says where its version is not to be run.
  runNext() {
    const plan = this.steps[this.next];
    this.began = now();
    if (!plan.rest) return this.run(plan.code);
    if (plan.policy !== LAST_GOOD || plan.fallback === null) return this.skip(REST, null);
    this.failure = { why: REST, error: null };
    this.run(plan.fallback);
  }

  run(code) {
    const step = new Step(this, this.next, code);
    this.step = step;
    this.unsettled++;
    this.give(step);
    this.call.link.options.context.run(step, startStep, step);
  }

  // give gives a step a copy of the state, or the state itself where no step from here on may be given up.
  give(step) {
    const state = step.index < this.told ? jsonParse(this.text) : this.state;
    if (this.kind === 'action') {
      step.input = jsonParse(this.event);
      step.effects = state;
    } else {
      step.input = state;
    }
  }

  // answered takes the state as a step has left it.
  answered(step, value) {
    if (this.over || step !== this.step) return;
    const last = step.index === this.steps.length - 1;
    let text = '';
    if (step.index < this.told || last) {
      try {
        text = jsonStringify(value);
      } catch (e) {
        return this.giveUp(step, 'error', serializeError(e));
      }
      if (this.over) return; // a toJSON has called back
      if (!this.call.fits(text)) return this.giveUp(step, 'output_too_large', null);
    }
    if (this.kind !== 'action' && !(isPlain(value.user) && isPlain(value.context))) {
      const what = isPlain(value.user) ? 'context' : 'user';
      return this.giveUp(step, 'error', new AgentError('TypeError', `the rule called back a ${what} that is no object`));
    }
    this.step = null;
    this.state = value;
    this.text = text;
    this.next++;
    const { failure } = this;
    this.failure = null;
    if (failure !== null) return this.tell(step.index, LAST_GOOD, failure.why, failure.error, last ? '' : text);
    if (step.index < this.told && !last) return this.tell(step.index, 'ok', '', null, text);
    this.note();
    this.goOn();
  }

  // giveUp fails a step that has answered.
  giveUp(step, why, error) {
    step.failed = true;
    this.stepFailed(step, why, error);
  }

  // stepFailed does what the step's policy says.
  stepFailed(step, why, error) {
    if (this.over || step !== this.step) return;
    this.step = null;
    const plan = this.steps[step.index];
    if (plan.policy === SKIP) return this.skip(why, error);
    if (plan.policy === LAST_GOOD && this.failure === null && plan.fallback !== null) {
      this.failure = { why, error };
      return this.standIn(step.index);
    }
    if (this.failure !== null && this.failure.why !== REST) ({ why, error } = this.failure); // what is to be mended
    this.end(why, step.index, error);
  }

  // standIn runs the fallback of a step, once the host knows: should the sandbox be lost in it, it is not to run again elsewhere.
  standIn(index) {
    const head = `{"index":${index},"outcome":"stand_in"}`;
    if (this.call.link.step(this.call, head, '', () => this.goOn())) this.goOn();
  }

  // skip goes on as if the step had not been there.
  skip(why, error) {
    const index = this.next++;
    this.state = jsonParse(this.text);
    this.tell(index, 'skipped', why, error, '');
  }

  took() {
    return P.max(0, P.round((now() - this.began) * 1000));
  }

  // note keeps the time of a step that the host is not told of.
  note() {
    this.times += (this.times === '' ? '' : ',') + this.took();
  }

  // tell tells the host what became of a step, with the state after it ('' = as before, or not needed any more), and goes on
  // once that has left.
  tell(index, outcome, why, error, text) {
    let head = `{"index":${index},"outcome":"${outcome}","us":${this.took()}`;
    if (why !== '' && why !== 'error' && why !== REST) head += `,"why":"${why}"`;
    if (error !== null) head += ',"error":' + failureText(why, error, SHORT);
    if (this.over) return; // a getter of the error did it
    if (this.call.link.step(this.call, head + '}', text, () => this.goOn())) this.goOn();
  }

  // denied tells the host at once that the running step refuses, whatever it does from here on.
  denied(step) {
    if (this.over || step.index >= this.told) return;
    const head = `{"index":${step.index},"outcome":"refused","error":${describe(step.denial, SHORT)}}`;
    this.call.link.refusedStep(this.call, head);
  }

  // refuse ends the pipeline. Nothing of the tenant's may run between this and the host's hearing of it.
  refuse(step, error) {
    this.end('refused', step.index, error);
    this.call.link.push();
  }

  // end answers with a failure or a refusal.
  end(why, index, error) {
    if (this.over) return;
    this.close();
    if (index === this.next) this.note();
    if (this.step !== null) this.step.end();
    this.step = null;
    this.call.link.dropBody(this.call); // of a state that waits for credit
    let text = error === null ? '' : failureText(why, error, Infinity);
    if (text.length > LONGEST) text = failureText(why, error, SHORT);
    if (this.call.ended) return;
    if (text !== '') text = ',"error":' + text;
    this.call.end(`{"outcome":"${why}","step":${index},"us":[${this.times}]${text}`, '', this.unsettled === 0);
  }

  complete() {
    const text = this.text === '' ? jsonStringify(this.state) : this.text;
    this.close();
    this.call.end(`{"us":[${this.times}]`, text, this.unsettled === 0);
  }

  // stop is called when the call is cancelled.
  stop() {
    this.close();
    if (this.step !== null) this.step.end();
    this.step = null;
  }

  // settled notes that a step's code is over.
  settled() {
    if (--this.unsettled === 0 && this.over) this.call.settle();
  }
}

const startStep = (step) => step.start();

function failureText(why, error, most) {
  return why === 'load_error' ? describeLoad(error) : describe(error, most);
}

module.exports = { Pipeline, planOf };
