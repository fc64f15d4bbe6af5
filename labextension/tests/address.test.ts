import './page';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findServer, headers, makeAddress, moduleUrl, resolve, socketUrl } from '../shared/address';
import { page } from './page';

const hub = makeAddress('/user/ana/', 'https://hub.example.org/user/ana/lab');

test('paths that the server gives already have its base URL, ours do not', () => {
  assert.equal(resolve(hub, 'sessions'), 'https://hub.example.org/user/ana/sessions');
  assert.equal(resolve(hub, '/user/ana/sessions/1'), 'https://hub.example.org/user/ana/sessions/1');
  assert.equal(resolve(hub, '/sessions/1'), 'https://hub.example.org/user/ana/sessions/1');
  assert.equal(socketUrl(hub, 'ws/1'), 'wss://hub.example.org/user/ana/ws/1');
  assert.equal(moduleUrl(hub, 'panel.js'), 'https://hub.example.org/user/ana/cambio/static/panel.js');
});

test('a request carries the token of the page, else the cookie that must be echoed', () => {
  assert.deepEqual(headers({ baseUrl: 'x', token: 'secret' }, '_xsrf=a'), { Authorization: 'token secret' });
  assert.deepEqual(headers(hub, 'a=b; _xsrf=2%7Cabc; c=d'), { 'X-XSRFToken': '2|abc' });
  assert.deepEqual(headers(hub, 'other=1'), {});
});

test('the page says which server it belongs to', () => {
  assert.equal(findServer(page), null);
  const element = page.createElement('script');
  element.id = 'jupyter-config-data';
  element.textContent = JSON.stringify({ baseUrl: '/user/ana/', token: 't' });
  page.body.append(element);
  assert.deepEqual(findServer(page), { baseUrl: 'http://localhost:8000/user/ana/', token: 't' });
  element.textContent = 'not json';
  assert.equal(findServer(page), null);
  element.remove();
});
