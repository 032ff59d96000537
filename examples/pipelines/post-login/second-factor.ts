import { isOffice } from './lib/office';

interface Event {
  request: { ip: string };
  authentication?: { methods: { name: string }[] };
  secrets: { OFFICE_RANGES: string };
}

export const onExecutePostLogin = async (event: Event, api: any): Promise<void> => {
  const done = event.authentication?.methods.some((m) => m.name === 'mfa');
  if (!done && !isOffice(event.request.ip, event.secrets.OFFICE_RANGES)) api.multifactor.enable('any', { allowRememberBrowser: false });
};
