// The whole of noVNC's public interface, as one module of the server's static route.
import RFB from '@novnc/novnc';

export default RFB;
